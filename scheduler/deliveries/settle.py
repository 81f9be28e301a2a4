"""How deliveries end other than well, and what that means for their reminders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Reminder
from models.delivery import DeliveryState
from models.reminder import ReminderState
from scheduler.tasks.versions import raise_versions


class Ending(NamedTuple):
    """A delivery that is about to end."""

    delivery_id: UUID
    reminder_id: UUID
    task_id: UUID


async def skip(session: AsyncSession, endings: Sequence[Ending], *, reason: str) -> None:
    """Nothing went out, and for this reason nothing should."""
    await session.execute(
        update(Delivery.__table__).where(Delivery.id.in_([each.delivery_id for each in endings])).values(email_id=None)
    )
    await _end(session, endings, DeliveryState.SKIPPED, ReminderState.SKIPPED, reason)


async def fail(session: AsyncSession, endings: Sequence[Ending], *, reason: str) -> None:
    """Nothing could go out, and nothing more is tried."""
    await _end(session, endings, DeliveryState.FAILED, ReminderState.FAILED, reason)


async def _end(
    session: AsyncSession,
    endings: Sequence[Ending],
    state: DeliveryState,
    reminder_state: ReminderState,
    reason: str,
) -> None:
    if not endings:
        return
    # Tasks before reminders, as a change of a task locks them: in one order there is no deadlock.
    await raise_versions(session, {each.task_id for each in endings})
    await session.execute(
        update(Delivery.__table__)
        .where(Delivery.id.in_([each.delivery_id for each in endings]))
        .values(state=state.value, reason=reason)
    )
    reminder_ids = await _without_another(session, {each.reminder_id for each in endings})
    await session.execute(
        update(Reminder.__table__)
        .where(Reminder.id.in_(reminder_ids), Reminder.state == ReminderState.SENDING.value)
        .values(state=reminder_state.value, reason=reason)
    )


async def _without_another(session: AsyncSession, reminder_ids: Iterable[UUID]) -> list[UUID]:
    """The reminders that have told nobody and are telling nobody: the others' state is for those deliveries to say."""
    # Of this firing: what an earlier one came to is another story.
    this_firing = and_(Reminder.id == Delivery.reminder_id, Reminder.fire_at == Delivery.fire_at)
    alive = (
        select(Delivery.reminder_id)
        .join(Reminder, this_firing)
        .where(
            Delivery.reminder_id.in_(list(reminder_ids)),
            Delivery.state.in_([DeliveryState.GATHERING.value, DeliveryState.SENDING.value, DeliveryState.SENT.value]),
        )
    )
    living = set((await session.execute(alive)).scalars())
    return sorted(each for each in reminder_ids if each not in living)
