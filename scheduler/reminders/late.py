"""Late reminders: after downtime up to five a person go out by themselves; more become one e-mail (semantics,
3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, Reminder, Task, User
from models.delivery import DeliveryState
from models.reminder import ReminderState
from scheduler.identifiers import new_id
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.fire import load_people
from scheduler.reminders.times import LATE_AFTER, LATE_ONES_BY_THEMSELVES

PATIENCE = timedelta(seconds=30)
"""How long a late delivery waits for the person's others, where some late reminder can't be fired just
now."""
PEOPLE_AT_ONCE = 200


async def gather_late(session: AsyncSession, *, emails: ReminderEmails, now: datetime) -> int:
    """Write the e-mails of late deliveries, for some people at a time. Returns the number of e-mails; 0 when
    none is left.

    1. Wait until no late reminder is left to fire, so that a person's late ones are all there to be counted.
    2. Lock the people (not the deliveries), so that one worker alone counts and writes for a person.
    """
    waiting = select(Delivery.user_id).where(Delivery.state == DeliveryState.GATHERING.value)
    if (await session.execute(waiting.limit(1))).first() is None:
        return 0
    unfired = select(Reminder.id).where(
        Reminder.state.in_([ReminderState.PENDING.value, ReminderState.CLAIMED.value]),
        Reminder.fire_at < now - LATE_AFTER,
    )
    if (await session.execute(unfired.limit(1))).first() is not None:
        waiting = waiting.where(Delivery.created_at < now - PATIENCE)
    person_ids = (await session.execute(waiting.distinct().limit(PEOPLE_AT_ONCE))).scalars().all()
    if not person_ids:
        return 0
    lock = select(User.id).where(User.id.in_(person_ids)).order_by(User.id).with_for_update(skip_locked=True)
    locked = (await session.execute(lock)).scalars().all()
    if not locked:
        return 0
    people = await load_people(session, locked)
    by_person: dict[UUID, list[Row[Any]]] = {}
    for delivery in await _late_deliveries(session, locked):
        by_person.setdefault(delivery.user_id, []).append(delivery)
    rows: list[dict[str, Any]] = []
    alone: list[UUID] = []
    for person_id, deliveries in by_person.items():
        person = people[person_id]
        if len(deliveries) > LATE_ONES_BY_THEMSELVES:
            email_id = new_id()
            items = [(delivery.reminder_id, delivery.fire_at, delivery) for delivery in deliveries]
            rows.append(emails.missed(email_id=email_id, person=person, items=items, now=now))
            await _send_under(session, [delivery.delivery_id for delivery in deliveries], email_id)
            continue
        for delivery in deliveries:
            alone.append(delivery.delivery_id)
            rows.append(
                emails.reminder(
                    email_id=delivery.email_id,
                    reminder_id=delivery.reminder_id,
                    fire_at=delivery.fire_at,
                    task=delivery,
                    person=person,
                    now=now,
                )
            )
    if alone:
        await _send_under(session, alone, None)
    if rows:
        await session.execute(insert(Email.__table__), rows)
    return len(rows)


async def _late_deliveries(session: AsyncSession, person_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    query = (
        select(
            Delivery.id.label("delivery_id"),
            Delivery.reminder_id,
            Delivery.user_id,
            Delivery.email_id,
            Delivery.fire_at,
            Task.title,
            Task.description,
            Task.priority,
            Task.category,
            Task.due_at,
            Task.all_day,
            Task.timezone,
        )
        .join(Task, Task.id == Delivery.task_id)
        .where(Delivery.state == DeliveryState.GATHERING.value, Delivery.user_id.in_(person_ids))
        .order_by(Delivery.user_id, Delivery.fire_at, Delivery.id)
    )
    return (await session.execute(query)).all()


async def _send_under(session: AsyncSession, delivery_ids: Sequence[UUID], email_id: UUID | None) -> None:
    """The deliveries are on their way now, under one e-mail or (None) each under its own."""
    values: dict[str, Any] = {"state": DeliveryState.SENDING.value}
    if email_id is not None:
        values["email_id"] = email_id
    await session.execute(update(Delivery.__table__).where(Delivery.id.in_(delivery_ids)).values(**values))
