"""Tasks."""

from datetime import datetime
from typing import Annotated, Literal, NotRequired
from uuid import UUID

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from web.schemas.fields import (
    Body,
    Id,
    Instant,
    Line,
    LongText,
    PageQuery,
    Priority,
    Status,
    TimeZone,
    Total,
    optional,
    repeated,
)
from web.schemas.reminders import Reminder, ReminderCreate
from web.schemas.users import Person

Title = Annotated[str, Line(1, 200)]
Description = Annotated[str, LongText(20_000, {"description": "Markdown"})]
Category = Annotated[str, Line(1, 50)]
AssigneeIds = Annotated[list[Id], Field(max_length=50)]
Permission = Annotated[
    Literal["view", "edit"],
    Field(description="`edit`: to change it, its status, and whom it is assigned to and shared with"),
]
Reminders = Annotated[list[ReminderCreate], Field(max_length=50)]


class TaskChange(Body):
    """What is to change (JSON Merge Patch): what is left out stays, `null` clears, a list given replaces the
    list."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "completed"}]})

    title: Title = optional()
    description: Description = optional()
    status: Status = optional()
    priority: Priority = optional()
    category: Category | None = optional()
    due_at: Instant | None = optional()
    all_day: Annotated[bool, Field(description="`due_at` then stands for its local date")] = optional()
    timezone: TimeZone = optional()
    assignee_ids: AssigneeIds = optional()
    reminders: Reminders = optional()


class TaskCreate(TaskChange):
    """A new task. Only `title` is required; the time zone is by default the caller's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "Pay the rent",
                    "due_at": "2030-01-01T09:00:00+01:00",
                    "timezone": "Europe/Berlin",
                    "reminders": [{"offset_minutes": 30}],
                }
            ]
        }
    )

    title: Title


class Assignment(Body):
    """Whom to assign the task to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "019ca000-0000-7000-8000-000000000000"}]})

    user_id: Id


class Share(Body):
    """Whom to share the task with, and what for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "019ca000-0000-7000-8000-000000000000", "permission": "edit"}],
        }
    )

    user_id: Id
    permission: Permission


class EverybodysTaskQuery(PageQuery):
    """Which of everybody's tasks. A filter given several times means any of its values."""

    status: list[Status] = repeated()


class TaskQuery(EverybodysTaskQuery):
    """Which tasks."""

    scope: Annotated[Literal["mine", "all"], Field(description="`all`: everybody's (managers and admins)")] = "mine"


class SharedWith(Person):
    """A person with whom a task is shared."""

    permission: Permission


class Task(TypedDict):
    """A task."""

    id: UUID
    title: str
    description: str
    status: Status
    priority: Priority
    category: str | None
    due_at: datetime | None
    all_day: bool
    timezone: str
    creator: Person
    assignees: list[Person]
    shared_with: list[SharedWith]
    reminders: Annotated[list[Reminder], Field(description="Those for the assignees")]
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    version: Annotated[int, Field(description="In quotes, the ETag")]


class TaskList(TypedDict):
    """A page of tasks."""

    items: list[Task]
    next_cursor: str | None
    total: NotRequired[Total]
