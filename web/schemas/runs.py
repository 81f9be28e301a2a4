"""Runs of jobs, and their records."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from web.schemas.fields import Instant, Line, PageQuery, Total, repeated

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost", "skipped"]
Trigger = Literal["cron", "manual", "event", "retry"]
JobName = Annotated[str, Line(1, 64)]


class ScheduleRunQuery(PageQuery):
    """Which of a schedule's runs. A filter given several times means any of its values."""

    state: list[State] = repeated()
    trigger: list[Trigger] = repeated()
    since: Annotated[Instant | None, Field(description="Queued then or later")] = None
    until: Annotated[Instant | None, Field(description="Queued before then")] = None


class RunQuery(ScheduleRunQuery):
    """Which runs. A filter given several times means any of its values."""

    job: list[JobName] = repeated()


class RunError(TypedDict):
    """Why a run failed."""

    type: str
    message: str
    traceback: Annotated[str | None, Field(description="For administrators only")]


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
    attempt: Annotated[int, Field(description="Attempts begun")]
    max_attempts: int
    scheduled_for: Annotated[datetime | None, Field(description="The firing of its schedule that it is for")]
    queued_at: datetime
    started_at: Annotated[datetime | None, Field(description="When the last attempt began")]
    finished_at: datetime | None
    duration_ms: Annotated[int | None, Field(description="Of the last attempt")]
    worker: Annotated[str | None, Field(description="For administrators only")]
    result: dict[str, Any]
    error: RunError | None
    progress: Progress
    retry_of: UUID | None
    queue: str
    owner_id: Annotated[UUID | None, Field(description="Who caused it; null: the service itself")]
    schedule_id: UUID | None
    request_id: Annotated[str | None, Field(description="Of the request that caused it")]


class RunAttempt(TypedDict):
    """One attempt at a run."""

    number: int
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    state: State
    error: RunError | None


class RunDetails(Run):
    """One run of one job, with all that was tried."""

    attempts: Annotated[list[RunAttempt], Field(description="First to last")]


class RunList(TypedDict):
    """A page of runs, newest first."""

    items: list[Run]
    next_cursor: str | None
    total: NotRequired[Total]
