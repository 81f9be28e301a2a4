"""Reminders."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from web.schemas.fields import Body, Instant, PageQuery, Total, Whole, optional

Audience = Literal["assignees", "me"]

# A year and a day, in minutes.
LONGEST_OFFSET = 366 * 24 * 60
LONGEST_SNOOZE = 366 * 24 * 60


def exactly_one(*names: str) -> dict[str, Any]:
    """JSON Schema for "exactly one of these, and not null"."""
    return {
        "oneOf": [
            {
                "required": [name],
                "properties": {
                    other: {"not": {"type": "null"}} if other == name else {"type": "null"} for other in names
                },
            }
            for name in names
        ]
    }


def _check_exactly_one(body: Body, *names: str) -> None:
    if sum(getattr(body, name) is not None for name in names) != 1:
        raise PydanticCustomError("exactly_one", "Give exactly one of {names}", {"names": " and ".join(names)})


class ReminderCreate(Body):
    """A reminder: `offset_minutes` before the due time (it moves with that), or at `remind_at`. Give exactly
    one."""

    model_config = ConfigDict(
        json_schema_extra={**exactly_one("offset_minutes", "remind_at"), "examples": [{"offset_minutes": 30}]}
    )

    offset_minutes: Annotated[int, Whole(0, LONGEST_OFFSET)] | None = optional()
    remind_at: Instant | None = optional()
    audience: Audience = Field("assignees", description="`me`: private to whoever sets it")

    @model_validator(mode="after")
    def _one_time(self) -> "ReminderCreate":
        _check_exactly_one(self, "offset_minutes", "remind_at")
        return self


class Snooze(Body):
    """Remind me again in so many minutes, or at `until`. Give exactly one."""

    model_config = ConfigDict(json_schema_extra={**exactly_one("minutes", "until"), "examples": [{"minutes": 10}]})

    minutes: Annotated[int, Whole(1, LONGEST_SNOOZE)] | None = optional()
    until: Instant | None = optional()

    @model_validator(mode="after")
    def _one_time(self) -> "Snooze":
        _check_exactly_one(self, "minutes", "until")
        return self


class ReminderQuery(PageQuery):
    """A page of a task's reminders."""


class Reminder(TypedDict):
    """One reminder of one task."""

    id: UUID
    task_id: UUID
    user_id: Annotated[UUID, Field(description="Who set it")]
    audience: Audience
    offset_minutes: int | None
    remind_at: datetime
    state: Literal["pending", "sent", "skipped", "failed"]
    sent_at: datetime | None


class ReminderList(TypedDict):
    """A page of reminders."""

    items: list[Reminder]
    next_cursor: str | None
    total: NotRequired[Total]
