"""People's own schedules: when, and what they do then."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from web.schemas.fields import Body, Instant, Line, LongText, PageQuery, TimeZone, Total, optional, union_tag
from web.schemas.jobs import Cron
from web.schemas.runs import Run
from web.schemas.tasks import TaskCreate

Overlap = Literal["skip", "queue"]
Missed = Literal["once", "none"]
Name = Annotated[str, Line(1, 200, {"examples": ["Every working day"]})]

# -- actions -------------------------------------------------------------------------------------------------


class CreateTask(Body):
    """Create a task, as `POST /tasks` would."""

    type: Literal["create_task"]
    task: TaskCreate


def _statuses(value: Any) -> Any:
    each = value if isinstance(value, list) else [value]
    if not 1 <= len(each) <= MOST_STATUSES or not all(map(_is_status, each)):
        raise PydanticCustomError(
            "out_of_range", "Must be a status from 100 to 599, or 1 to {most} of them", {"most": MOST_STATUSES}
        )
    return value


def _is_status(value: Any) -> bool:
    return type(value) in (int, float) and value == int(value) and 100 <= value <= 599


MOST_STATUSES = 50
_STATUS = {"type": "integer", "minimum": 100, "maximum": 599}
Statuses = Annotated[
    int | list[int],
    PlainValidator(_statuses),
    WithJsonSchema({"anyOf": [_STATUS, {"type": "array", "items": _STATUS, "minItems": 1, "maxItems": MOST_STATUSES}]}),
]


class HttpRequest(Body):
    """Send an HTTP request: never to a private address, unless the operator allows it.

    Tried up to three times. The run's `result` has `status`, `headers`, `body` (its first 64 KiB) and `duration_ms`.
    """

    type: Literal["http_request"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    url: Annotated[str, Line(1, 8000, {"format": "uri", "description": "`http://` or `https://`, without a user name"})]
    headers: Annotated[dict[str, str], Field(max_length=50)] = optional()
    body: Annotated[str, LongText(65_536)] | None = optional()
    timeout_s: Annotated[float, Field(ge=1, le=60, description="Seconds; by default 10")] = optional()
    expect_status: Annotated[
        Statuses | None, Field(description="The status, or the statuses, that are a success; by default 200 to 299")
    ] = optional()


class SendDigest(Body):
    """Send a digest of what is to be done. Not available yet."""

    type: Literal["send_digest"]


class _AnotherAction(Body):
    """Whatever none of these is: what is wrong with it is its type."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["create_task", "http_request", "send_digest"]


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return union_tag(kind if kind in ("create_task", "http_request", "send_digest") else "")


Action = Annotated[
    Annotated[CreateTask, Tag(union_tag("create_task"))]
    | Annotated[HttpRequest, Tag(union_tag("http_request"))]
    | Annotated[SendDigest, Tag(union_tag("send_digest"))]
    | SkipJsonSchema[Annotated[_AnotherAction, Tag(union_tag(""))]],
    Discriminator(_kind),
]

# -- schedules -----------------------------------------------------------------------------------------------


class ScheduleChange(Body):
    """What is to change: what is left out stays, and an `action` given replaces the action."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    name: Name = optional()
    cron: Cron = optional()
    timezone: TimeZone = optional()
    action: Action = optional()
    enabled: Annotated[bool, Field(description="Resuming runs nothing that was missed meanwhile")] = optional()
    overlap: Annotated[
        Overlap,
        Field(description="While the last run has not ended, a firing is left out, or waits for it. By default `skip`"),
    ] = optional()
    missed: Annotated[
        Missed,
        Field(description="Run once for all that was missed while nothing ran, or not at all. By default `once`"),
    ] = optional()

    def given(self) -> dict[str, Any]:
        """The fields that the client sent; the action as JSON."""
        values = super().given()
        if "action" in values:
            # Pydantic warns of fields with a validator of their own: it writes them twice, to the same text.
            values["action"] = self.action.model_dump(mode="json", exclude_unset=True, warnings=False)
        return values


class ScheduleCreate(ScheduleChange):
    """A new schedule; the time zone is by default the caller's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Every working day",
                    "cron": "0 9 * * MON-FRI",
                    "timezone": "Europe/Berlin",
                    "action": {"type": "create_task", "task": {"title": "Water the plants"}},
                }
            ]
        }
    )

    name: Name
    cron: Cron
    action: Action


class ScheduleQuery(PageQuery):
    """A page of schedules."""


class Backfill(Body):
    """A stretch of the past: every firing in it that has no run gets one."""

    model_config = ConfigDict(
        populate_by_name=False,
        json_schema_extra={"examples": [{"from": "2026-11-01T00:00:00Z", "until": "2026-11-08T00:00:00Z"}]},
    )

    since: Annotated[Instant, Field(alias="from", description="Inclusive")]
    until: Annotated[Instant, Field(description="Exclusive")]


class Backfilled(TypedDict):
    """What came of it."""

    runs: Annotated[int, Field(description="How many runs were made")]


class Schedule(TypedDict):
    """A person's own cron."""

    id: UUID
    name: str
    cron: str
    timezone: str
    action: dict[str, Any]
    enabled: bool
    overlap: Overlap
    missed: Missed
    next_run_at: Annotated[datetime | None, Field(description="Always ahead; null while it is paused")]
    last_run: Run | None
    created_at: datetime
    updated_at: datetime


class ScheduleList(TypedDict):
    """A page of schedules."""

    items: list[Schedule]
    next_cursor: str | None
    total: NotRequired[Total]
