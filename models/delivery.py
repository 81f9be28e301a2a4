"""The ledger of deliveries: who was told what, through which channel, and how it ended."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant


class DeliveryState(StrEnum):
    """Where a delivery stands. To clients `gathering` and `sending` are `planned`."""

    GATHERING = "gathering"
    """It is late; it waits a moment for the person's other late ones, as many become one e-mail."""
    SENDING = "sending"
    SENT = "sent"
    SKIPPED = "skipped"
    FAILED = "failed"


class Channel(StrEnum):
    """What carries a delivery."""

    EMAIL = "email"


class Delivery(Base):
    """One person told of one firing of one reminder through one channel: unique, so that nobody is told
    twice.

    No foreign keys: the ledger outlives what it speaks of.
    """

    __tablename__ = "delivery"
    __table_args__ = table_arguments(
        UniqueConstraint("reminder_id", "fire_at", "user_id", "channel"),
        Index(None, "user_id", "fire_at"),
        Index(None, "task_id", "fire_at"),
        Index(None, "email_id"),
        Index(None, "state", "user_id"),
    )

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    reminder_id: Mapped[UUID] = mapped_column(Id)
    task_id: Mapped[UUID] = mapped_column(Id)
    user_id: Mapped[UUID] = mapped_column(Id)
    audience: Mapped[str] = mapped_column(String(16))
    """The reminder's, so that a private one stays private after it is deleted."""
    channel: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    fire_at: Mapped[datetime] = mapped_column(Instant)
    sent_at: Mapped[datetime | None] = mapped_column(Instant)
    email_id: Mapped[UUID | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(Instant)
