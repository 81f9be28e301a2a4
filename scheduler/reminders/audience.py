"""Tasks and people as they are now, for the last look before a reminder goes out: three statements, whatever the
number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CompoundSelect, Row, and_, bindparam, null, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models import NotificationPreference, Task, TaskAssignee, TaskShare, User
from models.delivery import Channel
from models.reminder import Audience
from scheduler.reminders.recheck import PersonNow, TaskNow, reason_to_skip
from scheduler.reminders.rules import TASK_DELETED


class Tasks(NamedTuple):
    """Tasks by id, with all that an e-mail shows of them, the ids of their assignees, and whom they are shared with."""

    rows: dict[UUID, Row[Any]]
    assignees: dict[UUID, list[UUID]]
    shared_with: dict[UUID, dict[UUID, str]]

    def recipients(self, task_id: UUID, *, audience: str, set_by: UUID) -> Sequence[UUID]:
        """Whom a reminder is for when it fires (semantics, 3.1)."""
        if audience == Audience.ME:
            return [set_by]
        return self.assignees.get(task_id) or [self.rows[task_id].creator_id]

    def reason_to_skip(self, task_id: UUID, person: Row[Any] | None, *, require_verified_email: bool) -> str | None:
        """Why this person (a row of `load_people`) is not reminded of this task, or None when they are."""
        task = self.rows.get(task_id)
        if task is None:
            return TASK_DELETED  # for good, since the delivery was written
        return reason_to_skip(
            TaskNow(
                task.status,
                task.deleted_at is not None,
                task.creator_id,
                frozenset(self.assignees.get(task_id, ())),
                self.shared_with.get(task_id, {}),
            ),
            _person_now(person),
            require_verified_email=require_verified_email,
        )


async def load_tasks(session: AsyncSession, ids: Iterable[UUID]) -> Tasks:
    """The tasks and their people."""
    wanted = {"ids": list(ids)}
    rows = {task.id: task for task in await session.execute(_TASKS, wanted)}
    assignees: dict[UUID, list[UUID]] = {}
    shared_with: dict[UUID, dict[UUID, str]] = {}
    for task_id, user_id, permission in await session.execute(_TASK_PEOPLE, wanted):
        if permission is None:
            assignees.setdefault(task_id, []).append(user_id)
        else:
            shared_with.setdefault(task_id, {})[user_id] = permission
    return Tasks(rows, assignees, shared_with)


async def load_people(session: AsyncSession, ids: Iterable[UUID]) -> dict[UUID, Row[Any]]:
    """The people, with `wants_email`: their choice for reminder e-mails, None where they made none."""
    found = await session.execute(_PEOPLE, {"ids": list(ids)})
    return {person.id: person for person in found}


def _person_now(person: Row[Any] | None) -> PersonNow | None:
    if person is None:
        return None
    return PersonNow(
        id=person.id,
        role=person.role,
        is_active=person.status == "active",
        email_verified=person.email_verified_at is not None,
        wants_email=person.wants_email is not False,
    )


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
_TASK_PEOPLE: CompoundSelect[Any] = union_all(
    select(TaskAssignee.task_id, TaskAssignee.user_id, null().label("permission")).where(
        TaskAssignee.task_id.in_(bindparam("ids", expanding=True))
    ),
    select(TaskShare.task_id, TaskShare.user_id, TaskShare.permission).where(
        TaskShare.task_id.in_(bindparam("ids", expanding=True))
    ),
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
