"""Runs: each time a job did something, and how it ended."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, Json


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"


class RunTrigger(StrEnum):
    """What caused a run."""

    CRON = "cron"
    MANUAL = "manual"
    EVENT = "event"
    RETRY = "retry"


class Run(Base):
    """One run of one job. Its worker keeps `lease_until` ahead; when that passes, the run is lost."""

    __tablename__ = "run"
    __table_args__ = table_arguments(
        Index(None, "state", "lease_until"), Index(None, "queued_at"), Index(None, "job", "queued_at")
    )

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    job: Mapped[str] = mapped_column(String(64))
    trigger: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    scheduled_for: Mapped[datetime | None] = mapped_column(Instant)
    queued_at: Mapped[datetime] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    duration_ms: Mapped[int | None] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(String(128))
    result: Mapped[Any] = mapped_column(Json, nullable=True)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
    retry_of: Mapped[UUID | None] = mapped_column(Id)
    request_id: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
