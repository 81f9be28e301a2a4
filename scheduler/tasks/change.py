"""Changing tasks: fields, status, the bin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task
from scheduler.access import Action, Actor
from scheduler.accounts.client import Client
from scheduler.activity.record import record
from scheduler.clock import zone
from scheduler.errors import Conflict
from scheduler.reminders import rows as reminder_rows
from scheduler.tasks.assign import replace_assignees
from scheduler.tasks.create import start_of_day, task_times
from scheduler.tasks.read import PRIORITIES, get_for_change, get_open_for_change
from scheduler.tasks.versions import check_version


async def change_task(
    session: AsyncSession,
    *,
    actor: Actor,
    task_id: UUID,
    changes: Mapping[str, Any],
    now: datetime,
    client: Client | None = None,
    if_version: int | None = None,
) -> None:
    """Change the fields given (as `create_task` takes them); its reminders follow.

    Raises `NotFound`, `Forbidden`, `Invalid`, `PreconditionFailed` when `if_version` is not the present one,
    or `Conflict` (`already_deleted`) for a task in the bin.
    """
    task, people = await get_open_for_change(
        session, actor=actor, task_id=task_id, actions=_actions(changes), if_version=if_version
    )
    before = dict(task._mapping)
    after = before | _columns(changes, before, now)
    other_assignees = "assignee_ids" in changes and await replace_assignees(
        session, task_id=task_id, present=people.assignee_ids, user_ids=changes["assignee_ids"], now=now
    )
    times = task_times(after)
    if times != task_times(before):
        await reminder_rows.follow_task(session, task_id=task_id, times=times, now=now)
    other_reminders = False
    if "reminders" in changes:
        other_reminders = await reminder_rows.replace(
            session, task_id=task_id, times=times, user_id=actor.user_id, specs=changes["reminders"], now=now
        )
    columns = {key: value for key, value in after.items() if value != before[key]}
    if not (columns or other_assignees or other_reminders):
        return
    await _write(session, task_id, columns, now)
    told = {key: (_told(key, before[key]), _told(key, after[key])) for key in columns if key != "completed_at"}
    if other_assignees:
        told["assignee_ids"] = (sorted(map(str, people.assignee_ids)), sorted(map(str, changes["assignee_ids"])))
    await _record(session, actor, "task_changed", task_id, now=now, client=client, changes=told)


async def delete_task(
    session: AsyncSession,
    *,
    actor: Actor,
    task_id: UUID,
    now: datetime,
    client: Client | None = None,
    if_version: int | None = None,
) -> None:
    """Put a task into the bin, where it stays for 30 days. Raises as `change_task` does."""
    await _set_deleted(session, actor, task_id, deleted_at=now, now=now, client=client, if_version=if_version)


async def restore_task(
    session: AsyncSession, *, actor: Actor, task_id: UUID, now: datetime, client: Client | None = None
) -> None:
    """Take a task out of the bin; reminders still ahead come back. Raises `Conflict` (`already_restored`)
    where it is not in it."""
    await _set_deleted(session, actor, task_id, deleted_at=None, now=now, client=client)


async def _set_deleted(
    session: AsyncSession,
    actor: Actor,
    task_id: UUID,
    *,
    deleted_at: datetime | None,
    now: datetime,
    client: Client | None,
    if_version: int | None = None,
) -> None:
    action = Action.RESTORE if deleted_at is None else Action.DELETE
    task, _ = await get_for_change(session, actor=actor, task_id=task_id, actions=[action])
    check_version(task.version, if_version)
    if (task.deleted_at is None) == (deleted_at is None):
        if deleted_at is None:
            raise Conflict("This task is not in the bin.", code="already_restored")
        raise Conflict("This task is in the bin already.", code="already_deleted")
    times = task_times(dict(task._mapping) | {"deleted_at": deleted_at})
    await reminder_rows.follow_task(session, task_id=task_id, times=times, now=now)
    await _write(session, task_id, {"deleted_at": deleted_at}, now)
    what = "task_restored" if deleted_at is None else "task_deleted"
    await _record(session, actor, what, task_id, now=now, client=client, changes={})


def _actions(changes: Mapping[str, Any]) -> list[Action]:
    """What one must be allowed to, to change these fields."""
    needed = set()
    for field in changes:
        if field == "status":
            needed.add(Action.CHANGE_STATUS)
        elif field == "assignee_ids":
            needed.add(Action.ASSIGN)
        else:
            needed.add(Action.CHANGE)
    return sorted(needed)


def _columns(changes: Mapping[str, Any], before: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The columns that the changes give, with those that follow from them."""
    columns = {key: value for key, value in changes.items() if key in before}
    if "priority" in columns:
        columns["priority"] = PRIORITIES.index(columns["priority"]) + 1
    if columns.get("status", before["status"]) != before["status"]:
        columns["completed_at"] = now if columns["status"] == "completed" else None
    merged = {**before, **columns}
    if merged["all_day"] and merged["due_at"] is not None and {"due_at", "all_day", "timezone"} & columns.keys():
        due_at = merged["due_at"]
        if "due_at" not in columns and before["all_day"]:
            # Another zone, the same date on the calendar.
            due_at = due_at.astimezone(zone(before["timezone"])).replace(tzinfo=zone(merged["timezone"]))
        columns["due_at"] = start_of_day(due_at, all_day=True, timezone=merged["timezone"])
    return columns


async def _write(session: AsyncSession, task_id: UUID, columns: Mapping[str, Any], now: datetime) -> None:
    await session.execute(
        update(Task).where(Task.id == task_id).values(**columns, updated_at=now, version=Task.version + 1)
    )


def _told(column: str, value: Any) -> Any:
    """A column's value as clients see it."""
    if column == "priority":
        return PRIORITIES[value - 1]
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


async def _record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    task_id: UUID,
    *,
    now: datetime,
    client: Client | None,
    changes: Mapping[str, Sequence[Any]],
) -> None:
    await record(
        session,
        actor_id=actor.user_id,
        action=action,
        target_type="task",
        target_id=task_id,
        now=now,
        client=client,
        changes=changes,
    )
