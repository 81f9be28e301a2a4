"""What went out, what was skipped and why, and what comes next (semantics, 3.10)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from models import Delivery, Email, Reminder, Task, TaskAssignee
from models.delivery import Channel, DeliveryState
from models.reminder import Audience, ReminderState
from models.types import Id
from scheduler.access import Actor
from scheduler.paging import Page, after, decode_cursor, encode_cursor
from scheduler.reminders.rules import BEFORE_FIRING
from scheduler.tasks.read import get_task

BACK = timedelta(days=30)
AHEAD = timedelta(days=7)
AHEAD_PHASE, LEDGER_PHASE = 0, 1


class DeliveryEntry(NamedTuple):
    """One line of the list, planned or past."""

    id: UUID
    reminder_id: UUID
    task_id: UUID
    user_id: UUID
    channel: str
    state: str
    reason: str | None
    fire_at: datetime
    sent_at: datetime | None
    message_id: str | None


async def list_deliveries(
    session: AsyncSession,
    *,
    actor: Actor,
    now: datetime,
    task_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int,
    cursor: str | None = None,
    count: bool = False,
) -> Page[DeliveryEntry]:
    """The actor's deliveries, or with `task_id` those of a task that they see, latest fire time first.

    First come those that reminders plan (or have called off), then the ledger of those that fired.
    By default 30 days back and 7 ahead. Raises `NotFound` or `BadCursor`.
    """
    if task_id is not None:
        await get_task(session, actor=actor, task_id=task_id)
    since, until = since or now - BACK, until or now + AHEAD
    total = None
    if count:
        total = await _count(session, _ahead(actor, task_id, since, until))
        total += await _count(session, _ledger(actor, task_id, since, until))
    phase, fire_at, row_id, person_id = AHEAD_PHASE, None, None, None
    if cursor:
        phase, fire_at, row_id, person_id = decode_cursor(cursor, int, datetime, UUID, UUID)
    entries: list[tuple[DeliveryEntry, str]] = []
    if phase == AHEAD_PHASE:
        query = _ahead(actor, task_id, since, until)
        keys: tuple[ColumnElement[Any], ...] = (Reminder.fire_at.expression, Reminder.id.expression, _person)
        if fire_at is not None:
            query = query.where(after((keys[0], fire_at, True), (keys[1], row_id, True), (keys[2], person_id, True)))
        query = query.order_by(*(key.desc() for key in keys)).limit(limit + 1)
        for row in await session.execute(query):
            entries.append((_planned(row), encode_cursor(AHEAD_PHASE, row.fire_at, row.id, row.person_id)))
        fire_at = None
    if len(entries) <= limit:
        query = _ledger(actor, task_id, since, until)
        if fire_at is not None:
            query = query.where(
                after((Delivery.fire_at.expression, fire_at, True), (Delivery.id.expression, row_id, True))
            )
        query = query.order_by(Delivery.fire_at.desc(), Delivery.id.desc()).limit(limit + 1 - len(entries))
        for row in await session.execute(query):
            entries.append((_fired(row), encode_cursor(LEDGER_PHASE, row.fire_at, row.id, row.user_id)))
    page = entries[:limit]
    return Page([entry for entry, _ in page], page[-1][1] if len(entries) > limit else None, total)


async def _count(session: AsyncSession, query: Select[Any]) -> int:
    found = await session.execute(query.with_only_columns(func.count(), maintain_column_froms=True))
    return int(found.scalar_one())


_person: ColumnElement[Any] = type_coerce(
    func.coalesce(
        case((Reminder.audience == Audience.ME.value, Reminder.user_id)),
        TaskAssignee.user_id,
        Task.creator_id,
    ),
    Id(),
)
"""Whom a reminder is for: of a private one, who set it; else each assignee, or the creator where nobody is assigned."""


def _ahead(actor: Actor, task_id: UUID | None, since: datetime, until: datetime) -> Select[Any]:
    """Reminders that will fire, or were called off before they did; a row for each person whom they are for."""
    in_the_ledger = exists().where(
        Delivery.reminder_id == Reminder.id, Delivery.fire_at == Reminder.fire_at, Delivery.user_id == _person
    )
    query = (
        select(Reminder.__table__, _person.label("person_id"))
        .join(Task, Task.id == Reminder.task_id)
        .outerjoin(TaskAssignee, and_(TaskAssignee.task_id == Task.id, Reminder.audience == Audience.ASSIGNEES.value))
        .where(
            Reminder.fire_at >= since,
            Reminder.fire_at < until,
            or_(
                Reminder.state.in_([ReminderState.PENDING.value, ReminderState.CLAIMED.value]),
                and_(Reminder.state == ReminderState.SKIPPED.value, Reminder.reason.in_(BEFORE_FIRING)),
            ),
            ~in_the_ledger,
        )
    )
    if task_id is not None:
        common = Reminder.audience == Audience.ASSIGNEES.value
        return query.where(Reminder.task_id == task_id, or_(common, Reminder.user_id == actor.user_id))
    # By the tasks that the actor has to do with, so that the reminders of all others are never looked at.
    assigned = aliased(TaskAssignee)
    to_me = select(assigned.task_id).where(assigned.user_id == actor.user_id)
    return query.where(
        _person == actor.user_id,
        or_(Task.creator_id == actor.user_id, Task.id.in_(to_me), Reminder.user_id == actor.user_id),
    )


def _ledger(actor: Actor, task_id: UUID | None, since: datetime, until: datetime) -> Select[Any]:
    query = (
        select(Delivery.__table__, Email.message_id)
        .outerjoin(Email, Email.id == Delivery.email_id)
        .where(Delivery.fire_at >= since, Delivery.fire_at < until)
    )
    if task_id is None:
        return query.where(Delivery.user_id == actor.user_id)
    common = Delivery.audience == Audience.ASSIGNEES.value
    return query.where(Delivery.task_id == task_id, or_(Delivery.user_id == actor.user_id, common))


def _planned(row: Any) -> DeliveryEntry:
    skipped = row.state == ReminderState.SKIPPED
    return DeliveryEntry(
        # There is no row yet; the same plan has the same id each time it is read.
        id=uuid5(row.id, f"{row.person_id} {row.fire_at.isoformat()} {Channel.EMAIL}"),
        reminder_id=row.id,
        task_id=row.task_id,
        user_id=row.person_id,
        channel=Channel.EMAIL.value,
        state="skipped" if skipped else "planned",
        reason=row.reason,
        fire_at=row.fire_at,
        sent_at=None,
        message_id=None,
    )


def _fired(row: Any) -> DeliveryEntry:
    on_its_way = row.state in (DeliveryState.GATHERING, DeliveryState.SENDING)
    return DeliveryEntry(
        id=row.id,
        reminder_id=row.reminder_id,
        task_id=row.task_id,
        user_id=row.user_id,
        channel=row.channel,
        state="planned" if on_its_way else row.state,
        reason=row.reason,
        fire_at=row.fire_at,
        sent_at=row.sent_at,
        message_id=row.message_id,
    )
