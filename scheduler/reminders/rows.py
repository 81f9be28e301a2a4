"""Reminder rows: written and rewritten in the transaction of the change in their task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Reminder
from models.reminder import Audience
from scheduler.errors import FieldError, Invalid
from scheduler.identifiers import new_id
from scheduler.reminders.rules import Stand, TaskTimes, first_stand, stand_after_change

MOST_OF_A_TASK = 50


class ReminderSpec(NamedTuple):
    """A reminder as somebody asks for it: exactly one of `offset_minutes` (before the due time) and
    `remind_at`."""

    offset_minutes: int | None
    remind_at: datetime | None
    audience: str = Audience.ASSIGNEES.value


async def add(
    session: AsyncSession,
    *,
    task_id: UUID,
    times: TaskTimes,
    user_id: UUID,
    specs: Sequence[ReminderSpec],
    now: datetime,
    field: str = "/reminders",
    kept: int = 0,
) -> list[UUID]:
    """Insert reminders of a task, set by `user_id`. Returns their ids.

    Raises `Invalid` at `field` for an absolute time that is past, an offset without a due time, or too many
    (`kept` counts those that the task has already).
    """
    check(specs, times=times, now=now, field=field, kept=kept)
    rows = [_row(spec, task_id=task_id, times=times, user_id=user_id, now=now) for spec in specs]
    if rows:
        await session.execute(insert(Reminder.__table__), rows)
    return [row["id"] for row in rows]


async def replace(
    session: AsyncSession,
    *,
    task_id: UUID,
    times: TaskTimes,
    user_id: UUID,
    specs: Sequence[ReminderSpec],
    now: datetime,
) -> bool:
    """Make `specs` the task's list: those for its assignees, and those private to `user_id` that the list
    names.

    One that is there already stays as it is, with its state: sending the same list again neither repeats nor
    loses one. Returns whether those for the assignees, which the task's answer shows, are others now.
    """
    query = select(Reminder).where(Reminder.task_id == task_id).with_for_update()
    present = [
        reminder
        for reminder in (await session.execute(query)).scalars()
        if reminder.audience == Audience.ASSIGNEES or reminder.user_id == user_id
    ]
    unmatched = list(present)
    wanted: list[ReminderSpec] = []
    indexes: list[int] = []
    for index, spec in enumerate(specs):
        match = next((reminder for reminder in unmatched if _is(reminder, spec)), None)
        if match is None:
            wanted.append(spec)
            indexes.append(index)
        else:
            unmatched.remove(match)
    gone = [reminder.id for reminder in unmatched if reminder.audience == Audience.ASSIGNEES]
    try:
        await add(
            session,
            task_id=task_id,
            times=times,
            user_id=user_id,
            specs=wanted,
            now=now,
            kept=len(present) - len(gone),
        )
    except Invalid as error:
        raise Invalid(*(_at_its_place(each, indexes) for each in error.errors)) from None
    if gone:
        await session.execute(delete(Reminder.__table__).where(Reminder.id.in_(gone)))
    return bool(gone) or any(spec.audience == Audience.ASSIGNEES for spec in wanted)


async def follow_task(session: AsyncSession, *, task_id: UUID, times: TaskTimes, now: datetime) -> None:
    """Bring the reminders of a task into line with what the task is now."""
    query = (
        select(Reminder.id, Reminder.state, Reminder.reason, Reminder.fire_at, Reminder.offset_minutes)
        .where(Reminder.task_id == task_id)
        .with_for_update()
    )
    for row in (await session.execute(query)).all():
        present = Stand(row.state, row.reason, row.fire_at)
        stand = stand_after_change(present, offset_minutes=row.offset_minutes, task=times, now=now)
        if stand != present:
            await session.execute(update(Reminder.__table__).where(Reminder.id == row.id).values(**stand_values(stand)))


def stand_values(stand: Stand) -> dict[str, Any]:
    """The columns of a reminder that stands so; whoever had claimed it has lost it."""
    return {**stand._asdict(), "owner": None, "lease_until": None, "sent_at": None}


def check(
    specs: Sequence[ReminderSpec],
    *,
    times: TaskTimes,
    now: datetime,
    field: str = "/reminders",
    kept: int = 0,
) -> None:
    """Raise `Invalid` for reminders that can't be set on such a task."""
    errors = []
    if kept + len(specs) > MOST_OF_A_TASK:
        errors.append(FieldError(field, f"a task has at most {MOST_OF_A_TASK} reminders", "too_long"))
    for index, spec in enumerate(specs):
        place = f"{field}/{index}" if field else ""
        if spec.remind_at is not None and spec.remind_at <= now:
            errors.append(FieldError(f"{place}/remind_at", "must lie ahead", "past"))
        if spec.offset_minutes is not None and times.due_at is None:
            errors.append(FieldError(f"{place}/offset_minutes", "needs a task with a due_at", "needs_due_at"))
    if errors:
        raise Invalid(*errors)


def _row(spec: ReminderSpec, *, task_id: UUID, times: TaskTimes, user_id: UUID, now: datetime) -> dict[str, Any]:
    stand = first_stand(offset_minutes=spec.offset_minutes, remind_at=spec.remind_at, task=times, now=now)
    return {
        "id": new_id(),
        "task_id": task_id,
        "user_id": user_id,
        "audience": str(spec.audience),
        "offset_minutes": spec.offset_minutes,
        "seq": 0,
        "created_at": now,
        **stand._asdict(),
    }


def _is(reminder: Reminder, spec: ReminderSpec) -> bool:
    if reminder.audience != spec.audience or reminder.offset_minutes != spec.offset_minutes:
        return False
    return spec.offset_minutes is not None or reminder.fire_at == spec.remind_at


def _at_its_place(error: FieldError, indexes: Sequence[int]) -> FieldError:
    """`/reminders/<place among the new ones>/…` as `/reminders/<place in the list that was sent>/…`."""
    parts = error.field.split("/")
    if len(parts) > 2:
        parts[2] = str(indexes[int(parts[2])])
    return error._replace(field="/".join(parts))
