"""Reminders: fire times are data."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant


class ReminderState(StrEnum):
    """Where a reminder stands. To clients `claimed` and `sending` are still `pending`."""

    PENDING = "pending"
    CLAIMED = "claimed"
    """A worker holds it until `lease_until` and is about to write its deliveries."""
    SENDING = "sending"
    """Its deliveries are written; at least one is on its way."""
    SENT = "sent"
    SKIPPED = "skipped"
    FAILED = "failed"


class Audience(StrEnum):
    """Whom a reminder is for."""

    ASSIGNEES = "assignees"
    ME = "me"


class Reminder(Base):
    """One reminder of one task. `offset_minutes` is before the due time; None means that `fire_at` was given
    as such."""

    __tablename__ = "reminder"
    __table_args__ = table_arguments(
        Index(None, "state", "fire_at"), Index(None, "task_id"), Index(None, "user_id", "fire_at")
    )

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    task_id: Mapped[UUID] = mapped_column(Id, ForeignKey("task.id", ondelete="CASCADE"))
    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"))
    audience: Mapped[str] = mapped_column(String(16))
    offset_minutes: Mapped[int | None]
    fire_at: Mapped[datetime] = mapped_column(Instant)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    sent_at: Mapped[datetime | None] = mapped_column(Instant)
    owner: Mapped[UUID | None] = mapped_column(Id)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    snoozed_from: Mapped[UUID | None] = mapped_column(Id)
    """The reminder for all of which this is one person's snooze: a person has one for each."""
    seq: Mapped[int]
    """Raised by every claim."""
    created_at: Mapped[datetime] = mapped_column(Instant)
