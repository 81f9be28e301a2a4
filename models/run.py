"""Runs: each time a job did something, how it ended, and each attempt at it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, SmallInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, Json


class RunState(StrEnum):
    """Where a run stands. To clients `waiting`, `blocked`, `quarantined` and `dispatched` are `queued`."""

    WAITING = "waiting"
    """For `available_at`: a retry that backs off."""
    BLOCKED = "blocked"
    """Until no earlier run of its schedule is unfinished."""
    QUEUED = "queued"
    """Any dispatcher may take it up."""
    QUARANTINED = "quarantined"
    """A worker died at it: it may be what kills, so it is next tried alone, in a process of its own."""
    DISPATCHED = "dispatched"
    """Its id is on the way to a worker through the queue; `worker` is who dispatched it."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"


UNFINISHED = (
    RunState.WAITING,
    RunState.BLOCKED,
    RunState.QUEUED,
    RunState.QUARANTINED,
    RunState.DISPATCHED,
    RunState.RUNNING,
)
"""The states that are not final."""


class RunTrigger(StrEnum):
    """What caused a run."""

    CRON = "cron"
    MANUAL = "manual"
    EVENT = "event"
    RETRY = "retry"


class Run(Base):
    """One run of one job. While it is running, `worker` (its owner) and `seq` fence every write of its outcome.

    `scheduled_for` is unique in its schedule: each firing has one row, made by whoever is first.
    """

    __tablename__ = "run"
    __table_args__ = table_arguments(
        UniqueConstraint("schedule_id", "scheduled_for"),
        # What the dispatcher takes from: by priority, then fair by owner.
        Index(None, "state", "queue", "priority", "owner_id"),
        Index(None, "available_at"),
        # What operators read, newest first, each filter with an index of its own, so that no list scans history.
        Index(None, "queued_at"),
        Index(None, "state", "queued_at"),
        Index(None, "job", "queued_at"),
        Index(None, "trigger", "queued_at"),
        Index(None, "owner_id", "queued_at"),
        Index(None, "schedule_id", "queued_at"),
    )

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    job: Mapped[str] = mapped_column(String(64))
    trigger: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(32))
    priority: Mapped[int] = mapped_column(SmallInteger)
    """Lowest first."""
    owner_id: Mapped[UUID | None] = mapped_column(Id)
    """Whose run it is: a person's, or the service's own (None). Owners share a queue fairly."""
    arguments: Mapped[Any] = mapped_column(Json, nullable=True)
    schedule_id: Mapped[UUID | None] = mapped_column(Id)
    scheduled_for: Mapped[datetime | None] = mapped_column(Instant)
    unique_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    """While the run is unfinished no other run has this key."""
    idempotency_key: Mapped[str | None] = mapped_column(String(400), unique=True)
    """As long as the run is kept no other run has this key."""
    attempt: Mapped[int] = mapped_column(SmallInteger)
    """Attempts begun."""
    max_attempts: Mapped[int] = mapped_column(SmallInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    """Raised each time that the run changes hands; whoever holds an older one has lost it."""
    available_at: Mapped[datetime | None] = mapped_column(Instant)
    """When a waiting run may be queued again; None in every other state."""
    queued_at: Mapped[datetime] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    """When the last attempt began."""
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    duration_ms: Mapped[int | None] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(String(128))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(Instant)
    progress_done: Mapped[int] = mapped_column(BigInteger)
    progress_total: Mapped[int] = mapped_column(BigInteger)
    result: Mapped[Any] = mapped_column(Json, nullable=True)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
    """Of the last attempt that failed: `{"type", "message", "traceback"}`."""
    retry_of: Mapped[UUID | None] = mapped_column(Id)
    request_id: Mapped[str | None] = mapped_column(String(128))


class RunAttempt(Base):
    """One attempt that has ended and was not the one that settled a run at once.

    Written when the attempt ends; the attempt that is under way stands in the run itself.
    """

    __tablename__ = "run_attempt"
    __table_args__ = table_arguments()

    run_id: Mapped[UUID] = mapped_column(Id, ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """The run's, so that one attempt can't be written twice."""
    number: Mapped[int] = mapped_column(SmallInteger)
    state: Mapped[str] = mapped_column(String(16))
    """How it ended: a final state of a run."""
    worker: Mapped[str | None] = mapped_column(String(128))
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    finished_at: Mapped[datetime] = mapped_column(Instant)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
