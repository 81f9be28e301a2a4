"""Firing what was claimed: check again, render, and write delivery and e-mail rows, all of a claim in one
transaction."""

from __future__ import annotations

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
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.reminders.audience import Tasks, load_people, load_tasks
from scheduler.reminders.claim import Due
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.recheck import NO_RECIPIENT
from scheduler.reminders.times import is_late
from scheduler.settings import Settings
from scheduler.tasks.versions import raise_versions

RENDER_ERROR = "render_error"
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

    def add(self, other: Fired) -> None:
        """Sum up."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _Plan:
    """The rows to write for one claim."""

    deliveries: list[dict[str, Any]] = field(default_factory=list)
    emails: list[dict[str, Any]] = field(default_factory=list)
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
) -> Fired:
    """Turn claimed reminders into deliveries and e-mails.

    A firing that has a delivery row already (snoozed for that person, or a clock that was set back) hits the
    unique key; only then is it worth a statement to ask which ones there are.
    """

    async def work(session: AsyncSession) -> Fired:
        return await _fire(session, claim=claim, due=due, emails=emails, settings=settings, now=now, told=None)

    async def careful_work(session: AsyncSession) -> Fired:
        told = await _told_already(session, due)
        return await _fire(session, claim=claim, due=due, emails=emails, settings=settings, now=now, told=told)

    try:
        return await database.retry_write(work)
    except IntegrityError:
        return await database.retry_write(careful_work)


async def _fire(
    session: AsyncSession,
    *,
    claim: UUID,
    due: Sequence[Due],
    emails: ReminderEmails,
    settings: Settings,
    now: datetime,
    told: Told | None,
) -> Fired:
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
        return fired
    # 2. Look again.
    tasks = await load_tasks(session, {each.task_id for each in held})
    recipients = {each.id: tasks.recipients(each.task_id, audience=each.audience, set_by=each.user_id) for each in held}
    people = await load_people(session, {person for persons in recipients.values() for person in persons})
    # 3. Decide and render; then write in bulk.
    planner = _Planner(tasks, people, told or {}, emails, settings, now)
    for each in held:
        planner.plan(each, recipients[each.id])
    plan = planner.rows
    if plan.deliveries:
        await session.execute(insert(Delivery.__table__), plan.deliveries)
    if plan.emails:
        await session.execute(insert(Email.__table__), plan.emails)
    for (state, reason), reminder_ids in plan.ended.items():
        await session.execute(
            update(Reminder.__table__).where(Reminder.id.in_(reminder_ids)).values(state=state, reason=reason)
        )
        fired.skipped += len(reminder_ids)
    if plan.touched_tasks:
        await raise_versions(session, plan.touched_tasks)
    fired.emails, fired.late = len(plan.emails), plan.late
    return fired


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
        self.rows.deliveries.append(
            {
                "id": new_id(),
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
