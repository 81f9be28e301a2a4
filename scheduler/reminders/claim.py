"""Claiming what is due: a short transaction gives a lease, so that any number of workers share the work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Reminder
from models.reminder import ReminderState

LEASE = timedelta(seconds=10)
"""Between the claim and the deliveries lie some ten milliseconds; whoever takes longer is dead or stuck."""
BATCH = 500

_CLAIM = (
    update(Reminder.__table__)
    .where(Reminder.id.in_(bindparam("ids", expanding=True)))
    .values(
        state=ReminderState.CLAIMED.value,
        owner=bindparam("claim"),
        lease_until=bindparam("until"),
        seq=Reminder.seq + 1,
    )
)


class Due(NamedTuple):
    """A reminder that is due."""

    id: UUID
    task_id: UUID
    user_id: UUID
    audience: str
    fire_at: datetime


async def claim_due(session: AsyncSession, *, claim: UUID, now: datetime, limit: int = BATCH) -> Sequence[Due]:
    """Take up to `limit` due reminders, longest due first, under the lease `claim`.

    1. Lock the due rows that nobody else is at (SKIP LOCKED; on SQLite the whole transaction is the lock).
    2. One bulk UPDATE gives the lease; once this commits, no other worker sees them as pending.
    """
    query = (
        select(Reminder.id, Reminder.task_id, Reminder.user_id, Reminder.audience, Reminder.fire_at)
        .where(Reminder.state == ReminderState.PENDING.value, Reminder.fire_at <= now)
        .order_by(Reminder.fire_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    due = [Due(*row) for row in await session.execute(query)]
    if due:
        await session.execute(_CLAIM, {"ids": [each.id for each in due], "claim": claim, "until": now + LEASE})
    return due


async def release_claim(
    session: AsyncSession, *, claim: UUID, reminder_ids: Sequence[UUID], state: ReminderState
) -> None:
    """Give back what this claim holds of these reminders in this state, for anybody to claim at once."""
    await session.execute(
        update(Reminder.__table__)
        .where(
            Reminder.id.in_(reminder_ids),
            Reminder.owner == claim,
            Reminder.state == state.value,
        )
        .values(state=ReminderState.PENDING.value, owner=None, lease_until=None)
    )


async def has_expired(session: AsyncSession, *, now: datetime) -> bool:
    """Whether there is a claim whose lease ran out."""
    query = select(exists().where(Reminder.state == ReminderState.CLAIMED.value, Reminder.lease_until < now))
    return bool((await session.execute(query)).scalar_one())


async def release_expired(session: AsyncSession, *, now: datetime, limit: int = 5000) -> int:
    """Give back what was claimed by workers whose lease ran out, for the next tick. Returns how many."""
    query = (
        select(Reminder.id)
        .where(Reminder.state == ReminderState.CLAIMED.value, Reminder.lease_until < now)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = (await session.execute(query)).scalars().all()
    if ids:
        await session.execute(
            update(Reminder.__table__)
            .where(Reminder.id.in_(ids))
            .values(state=ReminderState.PENDING.value, owner=None, lease_until=None)
        )
    return len(ids)
