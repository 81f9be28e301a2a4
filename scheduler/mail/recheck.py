"""E-mails that could not leave for a while are looked at again: who has done the task meanwhile is not
reminded of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, Reminder, Task, TaskAssignee
from models.delivery import DeliveryState
from models.reminder import ReminderState
from scheduler.mail.claim import ClaimedEmail
from scheduler.reminders.fire import load_people, person_now, raise_versions
from scheduler.reminders.recheck import TaskNow, reason_to_skip

DELAYED = timedelta(seconds=30)
MOVED = "moved"


async def withdraw_outdated(
    session: AsyncSession, claimed: Sequence[ClaimedEmail], *, require_verified_email: bool, now: datetime
) -> list[ClaimedEmail]:
    """Take back the e-mails of single reminders that should not go out any more; returns those to send.

    Only e-mails written more than 30 s ago are looked at: in the normal case this costs no statement.
    An e-mail that sums up many reminders goes out as it is.
    """
    delayed = [email.id for email in claimed if now - email.created_at > DELAYED]
    if not delayed:
        return list(claimed)
    query = (
        select(
            Delivery.id,
            Delivery.email_id,
            Delivery.user_id,
            Delivery.reminder_id,
            Delivery.fire_at,
            Reminder.fire_at.label("fires_now_at"),
            Task.id.label("task_id"),
            Task.status,
            Task.deleted_at,
            Task.creator_id,
        )
        .join(Email, Email.id == Delivery.email_id)
        .join(Task, Task.id == Delivery.task_id)
        .outerjoin(Reminder, Reminder.id == Delivery.reminder_id)
        .where(
            Delivery.email_id.in_(delayed),
            Delivery.state == DeliveryState.SENDING.value,
            Email.template == "reminder",
        )
    )
    deliveries = (await session.execute(query)).all()
    people = await load_people(session, {row.user_id for row in deliveries})
    assignees: dict[UUID, set[UUID]] = {}
    assigned = select(TaskAssignee.task_id, TaskAssignee.user_id).where(
        TaskAssignee.task_id.in_({row.task_id for row in deliveries})
    )
    for task_id, user_id in await session.execute(assigned):
        assignees.setdefault(task_id, set()).add(user_id)
    withdrawn: dict[str, list[tuple[UUID, UUID, UUID, UUID]]] = {}
    for row in deliveries:
        task = TaskNow(
            row.status, row.deleted_at is not None, row.creator_id, frozenset(assignees.get(row.task_id, ()))
        )
        person = people.get(row.user_id)
        reason = reason_to_skip(task, person_now(person), require_verified_email=require_verified_email)
        if reason is None and row.fires_now_at != row.fire_at:
            reason = MOVED
        if reason:
            withdrawn.setdefault(reason, []).append((row.id, row.email_id, row.reminder_id, row.task_id))
    for reason, rows in withdrawn.items():
        await _withdraw(session, rows, reason)
    gone = {email_id for rows in withdrawn.values() for _, email_id, _, _ in rows}
    return [email for email in claimed if email.id not in gone]


async def _withdraw(
    session: AsyncSession, rows: Sequence[tuple[UUID, UUID, UUID, UUID]], reason: str
) -> None:
    delivery_ids, email_ids, reminder_ids, task_ids = (list(ids) for ids in zip(*rows, strict=True))
    await raise_versions(session, set(task_ids))
    await session.execute(
        update(Delivery.__table__)
        .where(Delivery.id.in_(delivery_ids))
        .values(state=DeliveryState.SKIPPED.value, reason=reason, email_id=None)
    )
    await session.execute(delete(Email.__table__).where(Email.id.in_(email_ids)))
    # Others may have been told by it already, or still may: then its state is theirs to say.
    alive = select(Delivery.reminder_id).where(
        Delivery.reminder_id.in_(reminder_ids),
        Delivery.state.in_([DeliveryState.SENDING.value, DeliveryState.SENT.value]),
    )
    living = set((await session.execute(alive)).scalars())
    await session.execute(
        update(Reminder.__table__)
        .where(
            Reminder.id.in_([each for each in reminder_ids if each not in living]),
            Reminder.state == ReminderState.SENDING.value,
        )
        .values(state=ReminderState.SKIPPED.value, reason=reason)
    )
