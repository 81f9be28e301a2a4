"""E-mails that could not leave for a while are looked at again: who has done the task meanwhile is not reminded of
it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, Reminder
from models.delivery import DeliveryState
from scheduler.deliveries.settle import Ending, skip
from scheduler.outbox.claim import ClaimedEmail
from scheduler.reminders.audience import load_people, load_tasks

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
            Delivery.task_id,
            Delivery.fire_at,
            Reminder.fire_at.label("fires_now_at"),
        )
        .join(Email, Email.id == Delivery.email_id)
        .outerjoin(Reminder, Reminder.id == Delivery.reminder_id)
        .where(
            Delivery.email_id.in_(delayed),
            Delivery.state == DeliveryState.SENDING.value,
            Email.template == "reminder",
        )
    )
    deliveries = (await session.execute(query)).all()
    tasks = await load_tasks(session, {row.task_id for row in deliveries})
    people = await load_people(session, {row.user_id for row in deliveries})
    withdrawn: dict[str, list[Ending]] = {}
    email_ids: set[UUID] = set()
    for row in deliveries:
        reason = tasks.reason_to_skip(
            row.task_id, people.get(row.user_id), require_verified_email=require_verified_email
        )
        if reason is None and row.fires_now_at != row.fire_at:
            reason = MOVED
        if reason is not None and row.email_id is not None:
            withdrawn.setdefault(reason, []).append(Ending(row.id, row.reminder_id, row.task_id))
            email_ids.add(row.email_id)
    for reason, endings in withdrawn.items():
        await skip(session, endings, reason=reason)
    if email_ids:
        await session.execute(delete(Email.__table__).where(Email.id.in_(email_ids)))
    return [email for email in claimed if email.id not in email_ids]
