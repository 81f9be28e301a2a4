"""Exports of all that is stored about a person."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant


class AccountExport(Base):
    """A person's newest export: being made by a run, then a file in the storage for a day."""

    __tablename__ = "account_export"
    __table_args__ = table_arguments(Index(None, "expires_at"))

    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[UUID] = mapped_column(Id)
    requested_at: Mapped[datetime] = mapped_column(Instant)
    storage_key: Mapped[str | None] = mapped_column(String(200))
    """None while it is being made."""
    size: Mapped[int | None] = mapped_column(BigInteger)
    """In bytes."""
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
