"""Reading tasks: plain rows and a fixed number of statements, whatever the page's length."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Reminder, Task, TaskAssignee, User
from models.reminder import Audience
from scheduler.access import Action, Actor, Relation, Role, may, relations
from scheduler.errors import Forbidden, NotFound
from scheduler.paging import Page, after, decode_cursor, encode_cursor

PRIORITIES = ("low", "medium", "high", "urgent")
"""By rank: stored as 1 to 4."""


class TaskDetails(NamedTuple):
    """A task with what its answer shows. `row` has the columns of `Task` and `creator_name`."""

    row: Row[Any]
    assignees: Sequence[Row[Any]]
    """Rows of `task_id`, `id`, `name`, by name."""
    reminders: Sequence[Row[Any]]
    """Rows of `Reminder`'s columns, those for the assignees, by fire time."""


async def get_task(session: AsyncSession, *, actor: Actor, task_id: UUID) -> TaskDetails:
    """One task. Raises `NotFound` when there is none that the actor may see."""
    details = await _details(session, _tasks().where(Task.id == task_id))
    if not details:
        raise NotFound()
    task = details[0]
    related = relations(
        actor.user_id,
        creator_id=task.row.creator_id,
        assignee_ids={assignee.id for assignee in task.assignees},
    )
    _check_visible(actor, related, deleted=task.row.deleted_at is not None)
    return task


async def get_for_change(
    session: AsyncSession, *, actor: Actor, task_id: UUID, actions: Sequence[Action]
) -> tuple[Row[Any], frozenset[UUID]]:
    """Lock a task for a change: its columns and its assignees.

    Raises `NotFound` when the actor can't see it, `Forbidden` when they may not do all of `actions`.
    """
    task = (await session.execute(select(Task.__table__).where(Task.id == task_id).with_for_update())).one_or_none()
    if task is None:
        raise NotFound()
    query = select(TaskAssignee.user_id).where(TaskAssignee.task_id == task_id)
    assignee_ids = frozenset((await session.execute(query)).scalars())
    related = relations(actor.user_id, creator_id=task.creator_id, assignee_ids=assignee_ids)
    _check_visible(actor, related, deleted=task.deleted_at is not None)
    if not all(may(actor.role, related, action) for action in actions):
        raise Forbidden()
    return task, assignee_ids


async def list_tasks(
    session: AsyncSession,
    *,
    actor: Actor,
    everybodys: bool = False,
    statuses: Sequence[str] = (),
    limit: int,
    cursor: str | None = None,
    count: bool = False,
) -> Page[TaskDetails]:
    """The actor's tasks (or `everybodys`: managers and admins), soonest due first, those without a due time
    last.

    Raises `Forbidden` or `BadCursor`.
    """
    if everybodys and actor.role not in (Role.MANAGER, Role.ADMIN):
        raise Forbidden("Only managers and administrators list everybody's tasks.")
    conditions: list[ColumnElement[bool]] = [Task.deleted_at.is_(None)]
    if not everybodys:
        assigned = select(TaskAssignee.task_id).where(TaskAssignee.user_id == actor.user_id)
        conditions.append(or_(Task.creator_id == actor.user_id, Task.id.in_(assigned)))
    if statuses:
        conditions.append(Task.status.in_(statuses))
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(Task).where(*conditions))).scalar_one()
    if cursor:
        conditions.append(_behind(cursor))
    query = _tasks().where(*conditions).order_by(Task.due_at.is_(None), Task.due_at, Task.id).limit(limit + 1)
    details = await _details(session, query)
    more = len(details) > limit
    items = details[:limit]
    return Page(items, encode_cursor(items[-1].row.due_at, items[-1].row.id) if more else None, total)


def _behind(cursor: str) -> ColumnElement[bool]:
    due_at, task_id = decode_cursor(cursor, datetime | None, UUID)
    if due_at is None:
        return and_(Task.due_at.is_(None), Task.id > task_id)
    return or_(
        Task.due_at.is_(None),
        after((Task.due_at.expression, due_at, False), (Task.id.expression, task_id, False)),
    )


def _tasks() -> Select[Any]:
    return select(Task.__table__, User.name.label("creator_name")).join(User, User.id == Task.creator_id)


async def _details(session: AsyncSession, query: Select[Any]) -> list[TaskDetails]:
    tasks = (await session.execute(query)).all()
    ids = [task.id for task in tasks]
    if not ids:
        return []
    assignees: dict[UUID, list[Row[Any]]] = {task_id: [] for task_id in ids}
    found = await session.execute(
        select(TaskAssignee.task_id, User.id, User.name)
        .join(User, User.id == TaskAssignee.user_id)
        .where(TaskAssignee.task_id.in_(ids))
        .order_by(User.name, User.id)
    )
    for assignee in found:
        assignees[assignee.task_id].append(assignee)
    reminders: dict[UUID, list[Row[Any]]] = {task_id: [] for task_id in ids}
    set_ones = await session.execute(
        select(Reminder.__table__)
        .where(Reminder.task_id.in_(ids), Reminder.audience == Audience.ASSIGNEES.value)
        .order_by(Reminder.fire_at, Reminder.id)
    )
    for reminder in set_ones:
        reminders[reminder.task_id].append(reminder)
    return [TaskDetails(task, assignees[task.id], reminders[task.id]) for task in tasks]


def _check_visible(actor: Actor, related: frozenset[Relation], *, deleted: bool) -> None:
    # In the bin a task is seen only by those who may take it out again.
    if not may(actor.role, related, Action.DELETE if deleted else Action.SEE):
        raise NotFound()
