"""Creating tasks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.activity.record import record
from scheduler.clock import zone
from scheduler.identifiers import new_id
from scheduler.reminders import rows as reminder_rows
from scheduler.reminders.rules import TaskTimes
from scheduler.tasks.assign import replace_assignees
from scheduler.tasks.read import PRIORITIES


async def create_task(
    session: AsyncSession, *, actor: Actor, values: Mapping[str, Any], now: datetime, client: Client | None = None
) -> UUID:
    """Create a task and its reminders; returns its id.

    `values` may hold `title` (required), `description`, `status`, `priority` (its name), `category`,
    `due_at`,
    `all_day`, `timezone`, `assignee_ids`, `reminders` (`ReminderSpec`s). Raises `Invalid`.
    """
    timezone = values.get("timezone") or actor.timezone
    due_at = start_of_day(values.get("due_at"), all_day=values.get("all_day", False), timezone=timezone)
    status = values.get("status", "todo")
    task = {
        "id": new_id(),
        "creator_id": actor.user_id,
        "title": values["title"],
        "description": values.get("description", ""),
        "status": status,
        "priority": PRIORITIES.index(values.get("priority", "medium")) + 1,
        "category": values.get("category"),
        "due_at": due_at,
        "all_day": values.get("all_day", False),
        "timezone": timezone,
        "completed_at": now if status == "completed" else None,
        "created_at": now,
        "updated_at": now,
        "deleted_at": None,
        "version": 1,
    }
    await session.execute(insert(Task).values(task))
    await replace_assignees(
        session, task_id=task["id"], present=frozenset(), user_ids=values.get("assignee_ids", ()), now=now
    )
    await reminder_rows.add(
        session,
        task_id=task["id"],
        times=task_times(task),
        user_id=actor.user_id,
        specs=values.get("reminders", ()),
        now=now,
    )
    await record(
        session,
        actor_id=actor.user_id,
        action="task_created",
        target_type="task",
        target_id=task["id"],
        now=now,
        client=client,
        changes={"title": (None, task["title"])},
    )
    return UUID(str(task["id"]))


def start_of_day(due_at: datetime | None, *, all_day: bool, timezone: str) -> datetime | None:
    """The due time as it is stored: of an all-day task the start of its local date, else as given."""
    if due_at is None or not all_day:
        return due_at
    local = due_at.astimezone(zone(timezone))
    # Midnight may not exist (spring forward at 00:00): read with the offset from before the gap (semantics,
    # 1.2).
    return local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def task_times(task: Mapping[str, Any]) -> TaskTimes:
    """What of a task's columns its reminders depend on."""
    return TaskTimes(
        due_at=task["due_at"],
        all_day=task["all_day"],
        timezone=task["timezone"],
        is_completed=task["status"] == "completed",
        is_deleted=task["deleted_at"] is not None,
    )
