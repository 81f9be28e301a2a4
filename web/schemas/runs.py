"""Runs of jobs, and their records, for operators."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from web.schemas.fields import Instant, Line, PageQuery, Total, repeated

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost", "skipped"]
Trigger = Literal["cron", "manual", "event", "retry"]
JobName = Annotated[str, Line(1, 64)]


class RunQuery(PageQuery):
    """Which runs. A filter given several times means any of its values."""

    job: list[JobName] = repeated()
    state: list[State] = repeated()
    trigger: list[Trigger] = repeated()
    since: Annotated[Instant | None, Field(description="Queued then or later")] = None
    until: Annotated[Instant | None, Field(description="Queued before then")] = None


class RunLogQuery(PageQuery):
    """A page of a run's records."""


class RunError(TypedDict):
    """Why a run failed."""

    type: str
    message: str
    traceback: str | None


class Progress(TypedDict):
    """How far a run has come; 0 of 0 where nothing is known."""

    done: int
    total: int


class Run(TypedDict):
    """One run of one job."""

    id: UUID
    job: str
    trigger: Trigger
    state: State
    attempt: int
    scheduled_for: datetime | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    worker: str | None
    result: dict[str, Any]
    error: RunError | None
    progress: Progress
    retry_of: UUID | None


class RunList(TypedDict):
    """A page of runs, newest first."""

    items: list[Run]
    next_cursor: str | None
    total: NotRequired[Total]


class LogRecord(TypedDict):
    """One structured record."""

    id: UUID
    at: datetime
    level: str
    event: str
    logger: str
    request_id: str | None
    run_id: UUID | None
    job: str | None
    user_id: UUID | None
    data: dict[str, Any]


class LogRecordList(TypedDict):
    """A page of records, newest first."""

    items: list[LogRecord]
    next_cursor: str | None
    total: NotRequired[Total]
