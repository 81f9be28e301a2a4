"""Requests that may be sent again, and the answers that they got."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Digest, Id, Instant, Json, MessageBytes


class IdempotencyKey(Base):
    """One caller's key: what was asked with it, and once that has ended the answer.

    The answer of what succeeded is written in the transaction of its effect: both are there, or neither.
    """

    __tablename__ = "idempotency_key"
    __table_args__ = table_arguments(Index(None, "user_id"), Index(None, "created_at"))

    digest: Mapped[bytes] = mapped_column(Digest, primary_key=True)
    """Of the caller and the key."""
    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"))
    fingerprint: Mapped[bytes] = mapped_column(Digest)
    """Of method, path, query and body."""
    owner: Mapped[UUID] = mapped_column(Id)
    """The request that answers; another takes over from one that never ended."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    status: Mapped[int | None] = mapped_column(SmallInteger)
    """None while the first request is running."""
    headers: Mapped[dict[str, str] | None] = mapped_column(Json)
    body: Mapped[bytes | None] = mapped_column(MessageBytes)
