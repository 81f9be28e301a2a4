"""Reading tasks: plain rows and a fixed number of statements, whatever the page's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, CompoundSelect, Row, Select, and_, func, null, or_, select, union, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models import Reminder, Task, TaskAssignee, TaskShare, User
from models.reminder import Audience
from scheduler.access import Action, Actor, Right, has_right, may, may_see, relations
from scheduler.errors import Conflict, Forbidden, NotFound
from scheduler.paging import Page, after, decode_cursor, encode_cursor
from scheduler.tasks.versions import check_version

PRIORITIES = ("low", "medium", "high", "urgent")
"""By rank: stored as 1 to 4."""


class TaskDetails(NamedTuple):
    """A task with what its answer shows. `row` has the columns of `Task` and `creator_name`."""

    row: Row[Any]
    assignees: Sequence[Row[Any]]
    """Rows of `task_id`, `id`, `name`, by name."""
    shared_with: Sequence[Row[Any]]
    """Rows of the same and `permission`, by name."""
    reminders: Sequence[Row[Any]]
    """Rows of `Reminder`'s columns, those for the assignees, by fire time."""


class People(NamedTuple):
    """Whom a task is for, but for its creator."""

    assignee_ids: frozenset[UUID]
    shared_with: Mapping[UUID, str]
    """What each is allowed, by their id."""


async def get_task(session: AsyncSession, *, actor: Actor, task_id: UUID) -> TaskDetails:
    """One task. Raises `NotFound` when there is none that the actor may see."""
    details = await _details(session, _tasks().where(Task.id == task_id))
    if not details:
        raise NotFound()
    task = details[0]
    related = relations(
        actor.user_id,
        creator_id=task.row.creator_id,
        assignee_ids={person.id for person in task.assignees},
        shared_with={person.id: person.permission for person in task.shared_with},
    )
    if not may_see(actor.role, related, in_bin=task.row.deleted_at is not None):
        raise NotFound()
    return task


async def get_for_change(
    session: AsyncSession, *, actor: Actor, task_id: UUID, actions: Sequence[Action]
) -> tuple[Row[Any], People]:
    """Lock a task for a change: its columns and its people.

    Raises `NotFound` when the actor can't see it, `Forbidden` when they may not do all of `actions`.
    """
    task = (await session.execute(select(Task.__table__).where(Task.id == task_id).with_for_update())).one_or_none()
    if task is None:
        raise NotFound()
    people = await _people(session, task_id)
    related = relations(actor.user_id, creator_id=task.creator_id, **people._asdict())
    if not may_see(actor.role, related, in_bin=task.deleted_at is not None):
        raise NotFound()
    if not all(may(actor.role, related, action) for action in actions):
        raise Forbidden()
    return task, people


async def get_open_for_change(
    session: AsyncSession,
    *,
    actor: Actor,
    task_id: UUID,
    actions: Sequence[Action],
    if_version: int | None = None,
) -> tuple[Row[Any], People]:
    """Lock a task that is not in the bin for a change, as `get_for_change` does.

    Raises also `PreconditionFailed` when `if_version` is not the present version, and `Conflict`
    (`already_deleted`) for a task in the bin.
    """
    task, people = await get_for_change(session, actor=actor, task_id=task_id, actions=actions)
    check_version(task.version, if_version)
    if task.deleted_at is not None:
        raise Conflict("This task is in the bin; restore it first.", code="already_deleted")
    return task, people


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
    if everybodys and not has_right(actor.role, Right.LIST_EVERY_TASK):
        raise Forbidden("Only managers and administrators list everybody's tasks.")
    conditions: list[ColumnElement[bool]] = [Task.deleted_at.is_(None)]
    if statuses:
        conditions.append(Task.status.in_(statuses))
    total = None
    if count:
        counting = select(func.count()).select_from(Task).where(*conditions)
        total = (await session.execute(counting if everybodys else _mine(counting, actor.user_id))).scalar_one()
    if cursor:
        conditions.append(_behind(cursor))
    query = _tasks().where(*conditions).order_by(Task.due_at.is_(None), Task.due_at, Task.id).limit(limit + 1)
    details = await _details(session, query if everybodys else _mine(query, actor.user_id))
    more = len(details) > limit
    items = details[:limit]
    return Page(items, encode_cursor(items[-1].row.due_at, items[-1].row.id) if more else None, total)


def _mine(query: Select[Any], user_id: UUID) -> Select[Any]:
    """Of tasks only those that the person made, is assigned to, or that are shared with them."""
    # A join, as it is by three indexes that they are found: with OR between subqueries MariaDB reads everybody's.
    mine = union(
        select(Task.id.label("task_id")).where(Task.creator_id == user_id),
        select(TaskAssignee.task_id).where(TaskAssignee.user_id == user_id),
        select(TaskShare.task_id).where(TaskShare.user_id == user_id),
    ).subquery("mine")
    return query.join(mine, mine.c.task_id == Task.id)


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
    shared_with: dict[UUID, list[Row[Any]]] = {task_id: [] for task_id in ids}
    for person in await session.execute(_named_people(ids)):
        (assignees if person.permission is None else shared_with)[person.task_id].append(person)
    reminders: dict[UUID, list[Row[Any]]] = {task_id: [] for task_id in ids}
    set_ones = await session.execute(
        select(Reminder.__table__)
        .where(Reminder.task_id.in_(ids), Reminder.audience == Audience.ASSIGNEES.value)
        .order_by(Reminder.fire_at, Reminder.id)
    )
    for reminder in set_ones:
        reminders[reminder.task_id].append(reminder)
    return [TaskDetails(task, assignees[task.id], shared_with[task.id], reminders[task.id]) for task in tasks]


def _named_people(task_ids: Sequence[UUID]) -> CompoundSelect[Any]:
    """Who is assigned to these tasks (without a `permission`) and whom they are shared with, by name."""
    assigned, shared = (
        select(table.task_id, User.id, User.name, permission.label("permission"))
        .join(User, User.id == table.user_id)
        .where(table.task_id.in_(task_ids))
        for table, permission in ((TaskAssignee, null()), (TaskShare, TaskShare.permission))
    )
    return union_all(assigned, shared).order_by("name", "id")


async def _people(session: AsyncSession, task_id: UUID) -> People:
    assigned = select(TaskAssignee.user_id, null().label("permission")).where(TaskAssignee.task_id == task_id)
    shared = select(TaskShare.user_id, TaskShare.permission).where(TaskShare.task_id == task_id)
    assignee_ids, shared_with = set(), {}
    for user_id, permission in await session.execute(union_all(assigned, shared)):
        if permission is None:
            assignee_ids.add(user_id)
        else:
            shared_with[user_id] = permission
    return People(frozenset(assignee_ids), shared_with)
