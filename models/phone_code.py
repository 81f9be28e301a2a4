"""Codes that verify telephone numbers."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Digest, Id, Instant


class PhoneCode(Base):
    """The code on its way to a person's telephone: one a person, and the newest counts."""

    __tablename__ = "phone_code"
    __table_args__ = table_arguments(Index(None, "expires_at"))

    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    phone: Mapped[str] = mapped_column(String(16))
    digest: Mapped[bytes | None] = mapped_column(Digest)
    """None until the job that sends it has made it."""
    attempts: Mapped[int] = mapped_column(SmallInteger)
    """Wrong codes given so far."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant)
