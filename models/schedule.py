"""Schedules: cron as data. A change is seen by every worker at its next tick."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, Json


class Overlap(StrEnum):
    """What to do with a firing while an earlier run of the schedule is unfinished."""

    SKIP = "skip"
    QUEUE = "queue"


class Missed(StrEnum):
    """What to do with firings whose time passed while nothing ran."""

    ONCE = "once"
    NONE = "none"


class Schedule(Base):
    """A cron expression in a zone, and the job that it causes: a person's own, or one of the service's (no user)."""

    __tablename__ = "schedule"
    __table_args__ = table_arguments(Index(None, "next_run_at"), Index(None, "user_id", "created_at"))

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    user_id: Mapped[UUID | None] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"))
    system_job: Mapped[str | None] = mapped_column(String(64), unique=True)
    """The job's name where the schedule is the service's own: each job has one at most."""
    job: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    cron: Mapped[str] = mapped_column(String(200))
    timezone: Mapped[str] = mapped_column(String(64))
    action: Mapped[Any] = mapped_column(Json, nullable=True)
    """What a person's schedule does; the arguments of its runs."""
    enabled: Mapped[bool]
    overlap: Mapped[str] = mapped_column(String(16))
    missed: Mapped[str] = mapped_column(String(16))
    next_run_at: Mapped[datetime | None] = mapped_column(Instant)
    """The next firing that nobody has made a run of; None while paused, or when the rule never fires again."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
