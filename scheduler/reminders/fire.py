"""Firing what was claimed: check again, render, and write delivery and e-mail rows, all of a claim in one
transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, NotificationPreference, Reminder, Task, TaskAssignee, User
from models.delivery import Channel, DeliveryState
from models.reminder import Audience, ReminderState
from scheduler.database import Database, affected
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.reminders.claim import Due
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.recheck import NO_RECIPIENT, PersonNow, TaskNow, reason_to_skip
from scheduler.reminders.times import is_late
from scheduler.settings import Settings

RENDER_ERROR = "render_error"
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
    not_sending: dict[tuple[str, str | None], list[UUID]] = field(default_factory=dict)
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
        return await _fire(
            session, claim=claim, due=due, emails=emails, settings=settings, now=now, told=None
        )

    async def careful_work(session: AsyncSession) -> Fired:
        told = await _told_already(session, due)
        return await _fire(
            session, claim=claim, due=due, emails=emails, settings=settings, now=now, told=told
        )

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
    told: set[tuple[UUID, datetime, UUID]] | None,
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
    # 2. Look again, in three statements whatever the number.
    tasks, assignees = await _tasks(session, {each.task_id for each in held})
    recipients = {each.id: _recipients(each, tasks[each.task_id], assignees) for each in held}
    people = await load_people(session, {person for persons in recipients.values() for person in persons})
    # 3. Decide and render; then write in bulk.
    plan = _Plan()
    for each in held:
        _plan_one(
            plan,
            each,
            task=tasks[each.task_id],
            assignee_ids=frozenset(assignees.get(each.task_id, ())),
            recipients=recipients[each.id],
            people=people,
            told=told or set(),
            emails=emails,
            settings=settings,
            now=now,
        )
    if plan.deliveries:
        await session.execute(insert(Delivery.__table__), plan.deliveries)
    if plan.emails:
        await session.execute(insert(Email.__table__), plan.emails)
    for (state, reason), reminder_ids in plan.not_sending.items():
        await session.execute(
            update(Reminder.__table__).where(Reminder.id.in_(reminder_ids)).values(state=state, reason=reason)
        )
        fired.skipped += len(reminder_ids)
    if plan.touched_tasks:
        await raise_versions(session, plan.touched_tasks)
    fired.emails, fired.late = len(plan.emails), plan.late
    return fired


def _plan_one(
    plan: _Plan,
    due: Due,
    *,
    task: Row[Any],
    assignee_ids: frozenset[UUID],
    recipients: Sequence[UUID],
    people: dict[UUID, Row[Any]],
    told: set[tuple[UUID, datetime, UUID]],
    emails: ReminderEmails,
    settings: Settings,
    now: datetime,
) -> None:
    task_now = TaskNow(task.status, task.deleted_at is not None, task.creator_id, assignee_ids)
    late = is_late(due.fire_at, now)
    sending, reason = False, None
    for person_id in recipients:
        if (due.id, due.fire_at, person_id) in told:
            continue
        person = people.get(person_id)
        why = reason_to_skip(
            task_now, person_now(person), require_verified_email=settings.require_verified_email
        )
        delivery = {
            "id": new_id(),
            "reminder_id": due.id,
            "task_id": due.task_id,
            "user_id": person_id,
            "channel": Channel.EMAIL.value,
            "state": DeliveryState.SKIPPED.value,
            "reason": why,
            "fire_at": due.fire_at,
            "email_id": None,
            "created_at": now,
        }
        if why is None and person is not None:
            delivery["email_id"] = email_id = new_id()
            delivery["state"] = DeliveryState.GATHERING.value if late else DeliveryState.SENDING.value
            if not late:
                try:
                    plan.emails.append(
                        emails.reminder(
                            email_id=email_id,
                            reminder_id=due.id,
                            fire_at=due.fire_at,
                            task=task,
                            person=person,
                            now=now,
                        )
                    )
                except Exception:  # one that can't be rendered must not hold up the rest of its claim
                    log.exception("reminder.render_failed", reminder_id=str(due.id))
                    delivery |= {
                        "state": DeliveryState.FAILED.value,
                        "reason": RENDER_ERROR,
                        "email_id": None,
                    }
                    reason = RENDER_ERROR
        plan.deliveries.append(delivery)
        sending = sending or delivery["email_id"] is not None
        reason = reason or why
    if sending:
        plan.late += late
        return
    state = ReminderState.FAILED if reason == RENDER_ERROR else ReminderState.SKIPPED
    plan.not_sending.setdefault((state.value, reason or NO_RECIPIENT), []).append(due.id)
    plan.touched_tasks.add(due.task_id)


def person_now(person: Row[Any] | None) -> PersonNow | None:
    """What the check needs of a row of `load_people`."""
    if person is None:
        return None
    return PersonNow(
        id=person.id,
        role=person.role,
        is_active=person.status == "active",
        email_verified=person.email_verified_at is not None,
        wants_email=person.wants_email is not False,
    )


async def load_people(session: AsyncSession, ids: Iterable[UUID]) -> dict[UUID, Row[Any]]:
    """The people, with `wants_email`: their choice for reminder e-mails, None where they made none."""
    found = await session.execute(_PEOPLE, {"ids": list(ids)})
    return {person.id: person for person in found}


async def raise_versions(session: AsyncSession, task_ids: Iterable[UUID]) -> None:
    """Raise the version of tasks whose reminders show a new state; in one order, so that two workers can't
    deadlock."""
    await session.execute(_RAISE_VERSIONS, {"ids": sorted(task_ids)})


async def _tasks(
    session: AsyncSession, ids: set[UUID]
) -> tuple[dict[UUID, Row[Any]], dict[UUID, list[UUID]]]:
    tasks = {task.id: task for task in await session.execute(_TASKS, {"ids": list(ids)})}
    assignees: dict[UUID, list[UUID]] = {}
    for row in await session.execute(_ASSIGNEES, {"ids": list(ids)}):
        assignees.setdefault(row.task_id, []).append(row.user_id)
    return tasks, assignees


def _recipients(due: Due, task: Row[Any], assignees: dict[UUID, list[UUID]]) -> Sequence[UUID]:
    """Whom a reminder is for when it fires (semantics, 3.1)."""
    if due.audience == Audience.ME:
        return [due.user_id]
    return assignees.get(due.task_id) or [task.creator_id]


async def _told_already(session: AsyncSession, due: Sequence[Due]) -> set[tuple[UUID, datetime, UUID]]:
    query = select(Delivery.reminder_id, Delivery.fire_at, Delivery.user_id).where(
        Delivery.reminder_id.in_([each.id for each in due])
    )
    return {(row.reminder_id, row.fire_at, row.user_id) for row in await session.execute(query)}


_TASKS = select(
    Task.id,
    Task.creator_id,
    Task.title,
    Task.description,
    Task.status,
    Task.priority,
    Task.category,
    Task.due_at,
    Task.all_day,
    Task.timezone,
    Task.deleted_at,
).where(Task.id.in_(bindparam("ids", expanding=True)))
_ASSIGNEES = select(TaskAssignee.task_id, TaskAssignee.user_id).where(
    TaskAssignee.task_id.in_(bindparam("ids", expanding=True))
)
_PEOPLE = (
    select(
        User.id,
        User.email,
        User.name,
        User.role,
        User.status,
        User.timezone,
        User.email_verified_at,
        NotificationPreference.enabled.label("wants_email"),
    )
    .outerjoin(
        NotificationPreference,
        and_(
            NotificationPreference.user_id == User.id,
            NotificationPreference.type == "reminder",
            NotificationPreference.channel == Channel.EMAIL.value,
        ),
    )
    .where(User.id.in_(bindparam("ids", expanding=True)))
)
_RAISE_VERSIONS = (
    update(Task.__table__)
    .where(Task.id.in_(bindparam("ids", expanding=True)))
    .values(version=Task.version + 1)
)
