"""Whom a task is shared with."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import TaskShare
from scheduler.access import Action, Actor, Permission
from scheduler.accounts.client import Client
from scheduler.activity.record import record
from scheduler.errors import FieldError, Invalid, NotFound
from scheduler.tasks.assign import active_among
from scheduler.tasks.read import get_open_for_change
from scheduler.tasks.versions import raise_version

MOST_SHARES = 200


async def share(
    session: AsyncSession,
    *,
    actor: Actor,
    task_id: UUID,
    user_id: UUID,
    permission: Permission,
    now: datetime,
    client: Client | None = None,
    if_version: int | None = None,
) -> None:
    """Share a task with a person, to view or to edit; whom it is shared with already may from now on do this.

    Raises `NotFound`, `Forbidden`, `PreconditionFailed`, `Conflict` (task in the bin), and `Invalid` that points at
    `/user_id`: nobody active, the task's creator, or one too many.
    """
    task, people = await get_open_for_change(
        session, actor=actor, task_id=task_id, actions=[Action.SHARE], if_version=if_version
    )
    present = people.shared_with.get(user_id)
    if present == permission:
        return
    if present is not None:
        await session.execute(update(TaskShare).where(*_share(task_id, user_id)).values(permission=permission.value))
    else:
        if user_id == task.creator_id:
            raise Invalid(FieldError("/user_id", "is who made the task, and may do everything with it", "creator"))
        if len(people.shared_with) >= MOST_SHARES:
            raise Invalid(FieldError("/user_id", f"a task is shared with at most {MOST_SHARES} people", "too_many"))
        if not await active_among(session, [user_id]):
            raise Invalid(FieldError("/user_id", "is nobody that you could share it with", "not_found"))
        row = {"task_id": task_id, "user_id": user_id, "permission": permission.value, "shared_at": now}
        await session.execute(insert(TaskShare).values(row))
    await raise_version(session, task_id, now=now)
    await _record(session, actor, task_id, user_id, (present, permission.value), now, client)


async def unshare(
    session: AsyncSession,
    *,
    actor: Actor,
    task_id: UUID,
    user_id: UUID,
    now: datetime,
    client: Client | None = None,
    if_version: int | None = None,
) -> None:
    """Share a task with this person no longer.

    Raises as `share` does, and `NotFound` also when it is not shared with that person.
    """
    _, people = await get_open_for_change(
        session, actor=actor, task_id=task_id, actions=[Action.SHARE], if_version=if_version
    )
    if user_id not in people.shared_with:
        raise NotFound()
    await session.execute(delete(TaskShare).where(*_share(task_id, user_id)))
    await raise_version(session, task_id, now=now)
    await _record(session, actor, task_id, user_id, (people.shared_with[user_id], None), now, client)


def _share(task_id: UUID, user_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return TaskShare.task_id == task_id, TaskShare.user_id == user_id


async def _record(
    session: AsyncSession,
    actor: Actor,
    task_id: UUID,
    user_id: UUID,
    permissions: tuple[str | None, str | None],
    now: datetime,
    client: Client | None,
) -> None:
    old, new = ({"user_id": user_id, "permission": each} if each else None for each in permissions)
    await record(
        session,
        actor_id=actor.user_id,
        action="task_shared" if new else "task_unshared",
        target_type="task",
        target_id=task_id,
        now=now,
        client=client,
        changes={"shared_with": (old, new)},
    )
