"""Personal API tokens."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Digest, Id, Instant


class ApiToken(Base):
    """A token that a person made for a program of theirs, by its digest. One that is taken back is deleted."""

    __tablename__ = "api_token"
    __table_args__ = table_arguments(Index(None, "user_id"), Index(None, "expires_at"))

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    digest: Mapped[bytes] = mapped_column(Digest, unique=True)
    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[str] = mapped_column(String(200))
    """Separated by spaces (RFC 6749, 3.3)."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)
    """To the minute or so: not every use is written down."""
