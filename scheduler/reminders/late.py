"""Late reminders: after downtime up to five a person go out by themselves; more become one e-mail (semantics, 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, Reminder, User
from models.delivery import DeliveryState
from models.reminder import ReminderState
from scheduler.deliveries.settle import Ending, fail, skip
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.reminders.audience import Tasks, load_people, load_tasks
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.fire import RENDER_ERROR
from scheduler.reminders.times import LATE_AFTER, LATE_ONES_BY_THEMSELVES

PATIENCE = timedelta(seconds=30)
"""How long a late delivery waits for the person's others, where some late reminder can't be fired just now."""
PEOPLE_AT_ONCE = 200
MOST_IN_ONE = 500
"""Lines of one e-mail; more would make a message that mail servers refuse for its size."""
log = get_logger("reminders")


class Gathered(NamedTuple):
    """What one round came to."""

    deliveries: int
    emails: int


async def gather_late(
    session: AsyncSession, *, emails: ReminderEmails, require_verified_email: bool, now: datetime
) -> Gathered:
    """Write the e-mails of late deliveries, for some people at a time; no deliveries means that none is left.

    1. Wait until no late reminder is left to fire, so that a person's late ones are all there to be counted.
    2. Lock the people (not the deliveries), so that one worker alone counts and writes for a person.
    3. Look again, as half a minute may have gone by: who has done the task meanwhile is not reminded of it.
    """
    locked = await _lock_people(session, now)
    if not locked:
        return Gathered(0, 0)
    people = await load_people(session, locked)
    deliveries = await _late_deliveries(session, locked)
    tasks = await load_tasks(session, {delivery.task_id for delivery in deliveries})
    skipped: dict[str, list[Ending]] = {}
    by_person: dict[UUID, list[Row[Any]]] = {}
    for delivery in deliveries:
        reason = tasks.reason_to_skip(
            delivery.task_id, people[delivery.user_id], require_verified_email=require_verified_email
        )
        if reason is None:
            by_person.setdefault(delivery.user_id, []).append(delivery)
        else:
            skipped.setdefault(reason, []).append(_ending(delivery))
    rows: list[dict[str, Any]] = []
    many = {person: late for person, late in by_person.items() if len(late) > LATE_ONES_BY_THEMSELVES}
    for person_id, late in many.items():
        for start in range(0, len(late), MOST_IN_ONE):
            part = late[start : start + MOST_IN_ONE]
            rows += await _write_one_for_all(session, part, tasks, people[person_id], emails, now)
    few = [late for person, late in by_person.items() if person not in many]
    rows += await _write_each([each for late in few for each in late], session, tasks, people, emails, now)
    if rows:
        await session.execute(insert(Email.__table__), rows)
    for reason, endings in skipped.items():
        await skip(session, endings, reason=reason)
    return Gathered(len(deliveries), len(rows))


async def _lock_people(session: AsyncSession, now: datetime) -> Sequence[UUID]:
    waiting = select(Delivery.user_id).where(Delivery.state == DeliveryState.GATHERING.value)
    if (await session.execute(waiting.limit(1))).first() is None:
        return []
    unfired = select(Reminder.id).where(
        Reminder.state.in_([ReminderState.PENDING.value, ReminderState.CLAIMED.value]),
        Reminder.fire_at < now - LATE_AFTER,
    )
    if (await session.execute(unfired.limit(1))).first() is not None:
        waiting = waiting.where(Delivery.created_at < now - PATIENCE)
    person_ids = (await session.execute(waiting.distinct().limit(PEOPLE_AT_ONCE))).scalars().all()
    lock = select(User.id).where(User.id.in_(person_ids)).order_by(User.id).with_for_update(skip_locked=True)
    return (await session.execute(lock)).scalars().all() if person_ids else []


async def _write_one_for_all(
    session: AsyncSession,
    late: Sequence[Row[Any]],
    tasks: Tasks,
    person: Row[Any],
    emails: ReminderEmails,
    now: datetime,
) -> list[dict[str, Any]]:
    email_id = new_id()
    items = [(each.reminder_id, each.fire_at, tasks.rows[each.task_id]) for each in late]
    try:
        row = emails.missed(email_id=email_id, person=person, items=items, now=now)
    except Exception:  # one person's must not hold up the others': theirs go out each by itself, as far as they can
        log.exception("reminder.render_failed", user_id=str(person.id))
        return await _write_each(late, session, tasks, {person.id: person}, emails, now)
    await _send_under(session, [each.id for each in late], email_id)
    return [row]


async def _write_each(
    late: Sequence[Row[Any]],
    session: AsyncSession,
    tasks: Tasks,
    people: dict[UUID, Row[Any]],
    emails: ReminderEmails,
    now: datetime,
) -> list[dict[str, Any]]:
    rows, sending, failed = [], [], []
    for each in late:
        try:
            row = emails.reminder(
                email_id=each.email_id,
                reminder_id=each.reminder_id,
                fire_at=each.fire_at,
                task=tasks.rows[each.task_id],
                person=people[each.user_id],
                now=now,
            )
        except Exception:  # one that can't be rendered must not hold up the others
            log.exception("reminder.render_failed", reminder_id=str(each.reminder_id))
            failed.append(_ending(each))
        else:
            rows.append(row)
            sending.append(each.id)
    await _send_under(session, sending, None)
    await fail(session, failed, reason=RENDER_ERROR)
    return rows


async def _late_deliveries(session: AsyncSession, person_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    query = (
        select(Delivery.__table__)
        .where(Delivery.state == DeliveryState.GATHERING.value, Delivery.user_id.in_(person_ids))
        .order_by(Delivery.user_id, Delivery.fire_at, Delivery.id)
    )
    return (await session.execute(query)).all()


async def _send_under(session: AsyncSession, delivery_ids: Sequence[UUID], email_id: UUID | None) -> None:
    """The deliveries are on their way now, under one e-mail or (None) each under its own."""
    if not delivery_ids:
        return
    values: dict[str, Any] = {"state": DeliveryState.SENDING.value}
    if email_id is not None:
        values["email_id"] = email_id
    await session.execute(update(Delivery.__table__).where(Delivery.id.in_(delivery_ids)).values(**values))


def _ending(delivery: Row[Any]) -> Ending:
    return Ending(delivery.id, delivery.reminder_id, delivery.task_id)
