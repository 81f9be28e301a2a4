"""Records of the log, for operators."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from web.schemas.fields import Id, Instant, Line, PageQuery, Total, repeated
from web.schemas.runs import JobName

Level = Literal["debug", "info", "warning", "error", "critical"]
MinimumLevel = Annotated[Level | None, Field(description="This level and those above it")]
Search = Annotated[
    Annotated[str, Line(1, 200)] | None, Field(description="What the record holds somewhere, in any case")
]


class RunLogQuery(PageQuery):
    """Which of a run's records."""

    level: MinimumLevel = None
    q: Search = None


class LogQuery(RunLogQuery):
    """Which records. A filter given several times means any of its values."""

    event: list[Annotated[str, Line(1, 200)]] = repeated()
    job: list[JobName] = repeated()
    run_id: Id | None = None
    request_id: Annotated[str, Line(1, 128)] | None = None
    user_id: Id | None = None
    since: Annotated[Instant | None, Field(description="Then or later")] = None
    until: Annotated[Instant | None, Field(description="Before then")] = None


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
