"""Sign-in sessions and the refresh tokens that carry them on."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Digest, Id, Instant


class Session(Base):
    """One sign-in of one person on one device; ended sessions stay for the record until they are cleaned
    up."""

    __tablename__ = "session"
    __table_args__ = table_arguments(Index(None, "user_id"), Index(None, "last_used_at"))

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"))
    ip: Mapped[str] = mapped_column(String(45))
    user_agent: Mapped[str] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(Instant)
    last_used_at: Mapped[datetime] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)


class RefreshToken(Base):
    """A refresh token by its digest. A used one is kept, so that its second use is seen."""

    __tablename__ = "refresh_token"
    __table_args__ = table_arguments(Index(None, "session_id"))

    digest: Mapped[bytes] = mapped_column(Digest, primary_key=True)
    session_id: Mapped[UUID] = mapped_column(Id, ForeignKey("session.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(Instant)
    used_at: Mapped[datetime | None] = mapped_column(Instant)
