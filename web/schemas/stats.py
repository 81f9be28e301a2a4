"""The service at a glance."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict


class QueueStats(TypedDict):
    """What waits in one queue."""

    name: str
    depth: Annotated[int, Field(description="Runs that are neither running nor finished")]
    oldest_s: Annotated[float, Field(description="Seconds since the oldest of them was asked for; 0 where none is")]


class WorkerStats(TypedDict):
    """A worker that is at work."""

    name: str
    started_at: datetime
    heartbeat_at: datetime
    running: Annotated[list[UUID], Field(description="The runs that it is at")]
    version: str
    queues: list[str]
    concurrency: int


class ReminderStats(TypedDict):
    """Reminders still to come."""

    pending: int
    late: Annotated[int, Field(description="Of them, those whose time passed more than a minute ago")]


class EmailStats(TypedDict):
    """E-mails by state."""

    pending: int
    sending: int
    sent: Annotated[int, Field(description="Up to 100,000: there may be more")]
    dead: int


class Stats(TypedDict):
    """The service at a glance."""

    queues: list[QueueStats]
    workers: list[WorkerStats]
    reminders: ReminderStats
    emails: EmailStats
    database_ms: Annotated[float, Field(description="One round trip")]
    redis_ms: Annotated[float | None, Field(description="One round trip; null while Redis is away")]
