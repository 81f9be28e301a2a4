"""Firing what was claimed: check again, render, and write delivery and e-mail rows, all of a claim in one
transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, Reminder
from models.delivery import Channel, DeliveryState
from models.reminder import ReminderState
from scheduler.database import Database, affected
from scheduler.deliveries.settle import Ending
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.outbox.hand_over import HandOver
from scheduler.reminders.audience import Tasks, load_people, load_tasks
from scheduler.reminders.claim import Due, release_claim
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.recheck import NO_RECIPIENT
from scheduler.reminders.times import is_late
from scheduler.settings import Settings
from scheduler.tasks.versions import raise_versions

RENDER_ERROR = "render_error"
A_SLICE = 50  # e-mails, some 5 ms
MOST_RECIPIENTS = 2000
"""E-mails of one transaction: some 10 MB and half a second."""
_ON_ITS_WAY = frozenset({DeliveryState.GATHERING.value, DeliveryState.SENDING.value})
Told = dict[tuple[UUID, datetime, UUID], tuple[str, str | None]]
"""The deliveries there are already, by reminder, fire time and person: state and reason."""
log = get_logger("reminders")


@dataclass(slots=True)
class Fired:
    """What came of a claim: counts of reminders (`late` and `skipped` among `claimed`) and of e-mails to
    send."""

    claimed: int = 0
    emails: int = 0
    late: int = 0
    skipped: int = 0
    lost: int = 0
    """Taken back or changed by somebody else between the claim and now."""

    def counts(self) -> dict[str, int]:
        """By name, for records and results."""
        return {name: getattr(self, name) for name in self.__slots__}

    def add(self, other: Fired) -> None:
        """Sum up."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _Plan:
    """The rows to write for one claim."""

    deliveries: list[dict[str, Any]] = field(default_factory=list)
    emails: list[dict[str, Any]] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    """The delivery that each of the e-mails carries."""
    ended: dict[tuple[str, str | None], list[UUID]] = field(default_factory=dict)
    """Reminders by the end (state, reason) that they come to at once, as nothing goes out for them."""
    touched_tasks: set[UUID] = field(default_factory=set)
    late: int = 0


async def fire(
    database: Database,
    *,
    claim: UUID,
    due: Sequence[Due],
    emails: ReminderEmails,
    settings: Settings,
    now: datetime,
    hand_over: HandOver | None = None,
) -> Fired:
    """Turn claimed reminders into deliveries and e-mails; with `hand_over`, these go straight to this process's sender.

    A firing that has a delivery row already (snoozed for that person, or a clock that was set back) hits the
    unique key; only then is it worth a statement to ask which ones there are.
    """

    async def write(session: AsyncSession, told: Told | None = None) -> tuple[Fired, _Plan | None]:
        fired, plan = await _plan(session, claim=claim, due=due, emails=emails, settings=settings, now=now, told=told)
        claimed = hand_over is not None and hand_over.claim(plan.emails, now=now)
        await _write(session, plan)
        return fired, plan if claimed else None

    async def write_carefully(session: AsyncSession) -> tuple[Fired, _Plan | None]:
        return await write(session, await _told_already(session, due))

    try:
        fired, plan = await database.retry_write(write)
    except IntegrityError:
        fired, plan = await database.retry_write(write_carefully)
    if hand_over is not None and plan is not None:
        hand_over.put(plan.emails, plan.endings)
    return fired


async def _plan(
    session: AsyncSession,
    *,
    claim: UUID,
    due: Sequence[Due],
    emails: ReminderEmails,
    settings: Settings,
    now: datetime,
    told: Told | None,
) -> tuple[Fired, _Plan]:
    # 1. The fence: what is still ours becomes `sending`. A task changed meanwhile has taken its reminders
    # from us.
    ids = [each.id for each in due]
    mine = and_(Reminder.id.in_(ids), Reminder.owner == claim)
    fenced = await session.execute(
        update(Reminder.__table__)
        .where(mine, Reminder.state == ReminderState.CLAIMED.value)
        .values(state=ReminderState.SENDING.value, lease_until=None)
    )
    held = due
    if affected(fenced) < len(due):
        query = select(Reminder.id).where(mine, Reminder.state == ReminderState.SENDING.value)
        still = set((await session.execute(query)).scalars())
        held = [each for each in due if each.id in still]
    fired = Fired(claimed=len(held), lost=len(due) - len(held))
    if not held:
        return fired, _Plan()
    # 2. Look again.
    tasks = await load_tasks(session, {each.task_id for each in held})
    recipients = {each.id: tasks.recipients(each.task_id, audience=each.audience, set_by=each.user_id) for each in held}
    held, others = _as_many_as(held, recipients, MOST_RECIPIENTS)
    if others:
        ids = [each.id for each in others]
        await release_claim(session, claim=claim, reminder_ids=ids, state=ReminderState.SENDING)
    fired.claimed = len(held)
    people = await load_people(session, {person for each in held for person in recipients[each.id]})
    # 3. Decide and render.
    planner = _Planner(tasks, people, told or {}, emails, settings, now)
    rendered = 0
    for each in held:
        planner.plan(each, recipients[each.id])
        rendered += len(recipients[each.id])
        if rendered >= A_SLICE:
            rendered = 0
            await asyncio.sleep(0)  # rendering is pure computing: let others of this loop have their turn
    plan = planner.rows
    fired.emails, fired.late = len(plan.emails), plan.late
    fired.skipped = sum(map(len, plan.ended.values()))
    return fired, plan


def _as_many_as(
    held: Sequence[Due], recipients: dict[UUID, Sequence[UUID]], most: int
) -> tuple[Sequence[Due], Sequence[Due]]:
    """The first reminders with at most so many recipients together (one at the least), and the others."""
    total = 0
    for index, each in enumerate(held):
        total += len(recipients[each.id])
        if total > most and index > 0:
            return held[:index], held[index:]
    return held, ()


async def _write(session: AsyncSession, plan: _Plan) -> None:
    if plan.deliveries:
        await session.execute(insert(Delivery.__table__), plan.deliveries)
    if plan.emails:
        await session.execute(insert(Email.__table__), plan.emails)
    for (state, reason), reminder_ids in plan.ended.items():
        await session.execute(
            update(Reminder.__table__).where(Reminder.id.in_(reminder_ids)).values(state=state, reason=reason)
        )
    if plan.touched_tasks:
        await raise_versions(session, plan.touched_tasks)


@dataclass(slots=True)
class _Planner:
    """Decides for each reminder and person, and collects the rows."""

    tasks: Tasks
    people: dict[UUID, Row[Any]]
    told: Told
    emails: ReminderEmails
    settings: Settings
    now: datetime
    rows: _Plan = field(default_factory=_Plan)

    def plan(self, due: Due, recipients: Sequence[UUID]) -> None:
        """Plan the deliveries of one reminder, or its end when there is none to make."""
        late = is_late(due.fire_at, self.now)
        outcomes = [self._plan_for(due, person_id, late=late) for person_id in recipients]
        if any(state in _ON_ITS_WAY for state, _ in outcomes):
            self.rows.late += late
            return
        reason = next((reason for _, reason in outcomes if reason), NO_RECIPIENT)
        if any(state == DeliveryState.SENT for state, _ in outcomes):
            end: tuple[str, str | None] = (ReminderState.SENT.value, None)
        elif any(state == DeliveryState.FAILED for state, _ in outcomes):
            end = (ReminderState.FAILED.value, reason)
        else:
            end = (ReminderState.SKIPPED.value, reason)
        self.rows.ended.setdefault(end, []).append(due.id)
        self.rows.touched_tasks.add(due.task_id)

    def _plan_for(self, due: Due, person_id: UUID, *, late: bool) -> tuple[str, str | None]:
        """One person's delivery. Returns its state and reason."""
        if (due.id, due.fire_at, person_id) in self.told:
            return self.told[due.id, due.fire_at, person_id]
        person = self.people.get(person_id)
        state, email_id = DeliveryState.SKIPPED, None
        reason = self.tasks.reason_to_skip(
            due.task_id, person, require_verified_email=self.settings.require_verified_email
        )
        if reason is None and person is not None:
            email_id = new_id()
            state = DeliveryState.GATHERING
            if not late:
                state = DeliveryState.SENDING
                try:
                    self._render(due, person, email_id)
                except Exception:  # one that can't be rendered must not hold up the rest of its claim
                    log.exception("reminder.render_failed", reminder_id=str(due.id))
                    state, reason, email_id = DeliveryState.FAILED, RENDER_ERROR, None
        delivery_id = new_id()
        if state == DeliveryState.SENDING:
            self.rows.endings.append(Ending(delivery_id, due.id, due.task_id))
        self.rows.deliveries.append(
            {
                "id": delivery_id,
                "reminder_id": due.id,
                "task_id": due.task_id,
                "user_id": person_id,
                "audience": due.audience,
                "channel": Channel.EMAIL.value,
                "state": state.value,
                "reason": reason,
                "fire_at": due.fire_at,
                "email_id": email_id,
                "created_at": self.now,
            }
        )
        return state.value, reason

    def _render(self, due: Due, person: Row[Any], email_id: UUID) -> None:
        self.rows.emails.append(
            self.emails.reminder(
                email_id=email_id,
                reminder_id=due.id,
                fire_at=due.fire_at,
                task=self.tasks.rows[due.task_id],
                person=person,
                now=self.now,
            )
        )


async def _told_already(session: AsyncSession, due: Sequence[Due]) -> Told:
    query = select(Delivery.reminder_id, Delivery.fire_at, Delivery.user_id, Delivery.state, Delivery.reason).where(
        Delivery.reminder_id.in_([each.id for each in due])
    )
    return {(row[0], row[1], row[2]): (row[3], row[4]) for row in await session.execute(query)}
