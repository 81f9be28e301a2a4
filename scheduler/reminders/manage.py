"""What people do with single reminders: list, add, delete, snooze."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Reminder
from models.delivery import Channel, DeliveryState
from models.reminder import Audience, ReminderState
from scheduler.access import Action, Actor
from scheduler.errors import Conflict, FieldError, Invalid, NotFound
from scheduler.identifiers import new_id
from scheduler.paging import Page, after, decode_cursor, encode_cursor
from scheduler.reminders import rows as reminder_rows
from scheduler.reminders.rows import MOST_OF_A_TASK, ReminderSpec, stand_values
from scheduler.reminders.rules import Stand
from scheduler.tasks.create import task_times
from scheduler.tasks.read import get_for_change, get_open_for_change, get_task
from scheduler.tasks.versions import raise_version
from scheduler.upsert import upsert

SNOOZED = "snoozed"


async def list_reminders(
    session: AsyncSession, *, actor: Actor, task_id: UUID, limit: int, cursor: str | None = None, count: bool = False
) -> Page[Row[Any]]:
    """A task's reminders: those for its assignees and the actor's private ones, soonest first. Raises
    `NotFound`."""
    await get_task(session, actor=actor, task_id=task_id)
    conditions = (Reminder.task_id == task_id, _visible_to(actor))
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(Reminder).where(*conditions))).scalar_one()
    query = select(Reminder.__table__).where(*conditions)
    if cursor:
        fire_at, reminder_id = decode_cursor(cursor, datetime, UUID)
        query = query.where(
            after((Reminder.fire_at.expression, fire_at, False), (Reminder.id.expression, reminder_id, False))
        )
    query = query.order_by(Reminder.fire_at, Reminder.id).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].fire_at, items[-1].id) if len(found) > limit else None, total)


async def add_reminder(
    session: AsyncSession, *, actor: Actor, task_id: UUID, spec: ReminderSpec, now: datetime
) -> Row[Any]:
    """Add one reminder to a task. Raises `NotFound`, `Forbidden`, `Invalid`, `Conflict` (task in the bin)."""
    private = spec.audience == Audience.ME
    action = Action.REMIND_ME if private else Action.REMIND_ASSIGNEES
    task, _ = await get_open_for_change(session, actor=actor, task_id=task_id, actions=[action])
    present = (await session.execute(select(Reminder.id).where(Reminder.task_id == task_id, _visible_to(actor)))).all()
    reminder_rows.check([spec], times=task_times(task._asdict()), now=now, field="")
    if len(present) >= MOST_OF_A_TASK:
        raise Invalid(FieldError("", f"a task has at most {MOST_OF_A_TASK} reminders", "too_long"))
    [reminder_id] = await reminder_rows.add(
        session,
        task_id=task_id,
        times=task_times(task._asdict()),
        user_id=actor.user_id,
        specs=[spec],
        now=now,
    )
    if not private:
        await raise_version(session, task_id, now=now)
    return await _row(session, reminder_id)


async def get_for_delete(session: AsyncSession, *, actor: Actor, reminder_id: UUID) -> Row[Any]:
    """Lock a reminder's task so as to delete the reminder, which is as it is returned. Raises `NotFound` or
    `Forbidden`."""
    reminder = await _visible_reminder(session, actor=actor, reminder_id=reminder_id)
    action = Action.REMIND_ME if reminder.audience == Audience.ME else Action.REMIND_ASSIGNEES
    await get_for_change(session, actor=actor, task_id=reminder.task_id, actions=[action])
    return await _visible_reminder(session, actor=actor, reminder_id=reminder_id)  # as the wait for the lock left it


async def delete_reminder(session: AsyncSession, *, actor: Actor, reminder_id: UUID, now: datetime) -> None:
    """Delete one reminder; what it sent stays in the ledger. Raises `NotFound` or `Forbidden`."""
    reminder = await get_for_delete(session, actor=actor, reminder_id=reminder_id)
    await session.execute(delete(Reminder).where(Reminder.id == reminder_id))
    if reminder.audience != Audience.ME:
        await raise_version(session, reminder.task_id, now=now)


async def snooze(session: AsyncSession, *, actor: Actor, reminder_id: UUID, until: datetime, now: datetime) -> Row[Any]:
    """Remind this person (and nobody else) of the task again at `until`; also after the reminder was sent.

    Somebody's private reminder moves. Of one for the assignees, the person gets a private copy, and is left
    out when
    the common one fires, by a delivery row that says `snoozed`. Returns the reminder that will fire.
    Raises `NotFound`, `Invalid`, `Conflict` (`already_completed`, `already_deleted`).
    """
    reminder = await _visible_reminder(session, actor=actor, reminder_id=reminder_id)
    task, _ = await get_for_change(session, actor=actor, task_id=reminder.task_id, actions=[Action.REMIND_ME])
    if until <= now:
        raise Invalid(FieldError("/until", "must lie ahead", "past"))
    if task.deleted_at is not None:
        raise Conflict("This task is in the bin; restore it first.", code="already_deleted")
    if task.status == "completed":
        raise Conflict("This task is completed, so there is nothing to remind of.", code="already_completed")
    own_id = reminder_id
    if reminder.audience != Audience.ME:
        if reminder.state in (ReminderState.PENDING, ReminderState.CLAIMED):
            await _leave_out(session, reminder=reminder, user_id=actor.user_id, now=now)
        own_id = await _own_copy(session, reminder=reminder, task=task, user_id=actor.user_id, until=until, now=now)
    await session.execute(
        update(Reminder)
        .where(Reminder.id == own_id)
        .values(**stand_values(Stand(ReminderState.PENDING.value, None, until)), offset_minutes=None)
    )
    return await _row(session, own_id)


async def _own_copy(
    session: AsyncSession,
    *,
    reminder: Row[Any],
    task: Row[Any],
    user_id: UUID,
    until: datetime,
    now: datetime,
) -> UUID:
    """The person's private copy of a common reminder; they have one, so that snoozing again moves it."""
    query = select(Reminder.id).where(
        Reminder.task_id == task.id, Reminder.snoozed_from == reminder.id, Reminder.user_id == user_id
    )
    found = (await session.execute(query)).scalars().first()
    if found is not None:
        return found
    [copy_id] = await reminder_rows.add(
        session,
        task_id=task.id,
        times=task_times(task._asdict()),
        user_id=user_id,
        specs=[ReminderSpec(None, until, Audience.ME.value)],
        now=now,
    )
    await session.execute(update(Reminder).where(Reminder.id == copy_id).values(snoozed_from=reminder.id))
    return copy_id


async def _leave_out(session: AsyncSession, *, reminder: Row[Any], user_id: UUID, now: datetime) -> None:
    values = {
        "id": new_id(),
        "reminder_id": reminder.id,
        "task_id": reminder.task_id,
        "user_id": user_id,
        "audience": reminder.audience,
        "channel": Channel.EMAIL.value,
        "state": DeliveryState.SKIPPED.value,
        "reason": SNOOZED,
        "fire_at": reminder.fire_at,
        "created_at": now,
    }
    # Where there is a row already, it was snoozed before, or told: either way nothing goes out for this firing.
    await upsert(session, Delivery, [values])


async def _visible_reminder(session: AsyncSession, *, actor: Actor, reminder_id: UUID) -> Row[Any]:
    query = select(Reminder.__table__).where(Reminder.id == reminder_id, _visible_to(actor))
    reminder = (await session.execute(query)).one_or_none()
    if reminder is None:
        raise NotFound()
    return reminder


def _visible_to(actor: Actor) -> Any:
    return or_(
        Reminder.audience == Audience.ASSIGNEES.value,
        and_(Reminder.audience == Audience.ME.value, Reminder.user_id == actor.user_id),
    )


async def _row(session: AsyncSession, reminder_id: UUID) -> Row[Any]:
    return (await session.execute(select(Reminder.__table__).where(Reminder.id == reminder_id))).one()
