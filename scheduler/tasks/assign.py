"""Whom a task is assigned to."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import TaskAssignee, User
from models.user import AccountStatus
from scheduler.access import Action, Actor
from scheduler.accounts.client import Client
from scheduler.activity.record import record
from scheduler.errors import FieldError, Invalid, NotFound
from scheduler.tasks.read import get_open_for_change
from scheduler.tasks.versions import raise_version

MOST_ASSIGNEES = 50


async def assign(
    session: AsyncSession,
    *,
    actor: Actor,
    task_id: UUID,
    user_id: UUID,
    now: datetime,
    client: Client | None = None,
    if_version: int | None = None,
) -> None:
    """Assign a task to one more person; somebody who has it already keeps it, and nothing changes.

    Raises `NotFound`, `Forbidden`, `PreconditionFailed`, `Conflict` (task in the bin), and `Invalid` that points at
    `/user_id`: nobody active, or one too many.
    """
    _, people = await get_open_for_change(
        session, actor=actor, task_id=task_id, actions=[Action.ASSIGN], if_version=if_version
    )
    if user_id in people.assignee_ids:
        return
    if len(people.assignee_ids) >= MOST_ASSIGNEES:
        raise Invalid(FieldError("/user_id", f"a task has at most {MOST_ASSIGNEES} assignees", "too_many"))
    if not await active_among(session, [user_id]):
        raise Invalid(FieldError("/user_id", "is nobody that you could assign", "not_found"))
    await add_assignees(session, task_id=task_id, user_ids=[user_id], now=now)
    await raise_version(session, task_id, now=now)
    await record(
        session,
        actor_id=actor.user_id,
        action="task_assigned",
        target_type="task",
        target_id=task_id,
        now=now,
        client=client,
        changes={"assignee_id": (None, user_id)},
    )


async def unassign(
    session: AsyncSession,
    *,
    actor: Actor,
    task_id: UUID,
    user_id: UUID,
    now: datetime,
    client: Client | None = None,
    if_version: int | None = None,
) -> None:
    """Take a task from one of its assignees.

    Raises as `assign` does, and `NotFound` also when it is not assigned to that person.
    """
    _, people = await get_open_for_change(
        session, actor=actor, task_id=task_id, actions=[Action.ASSIGN], if_version=if_version
    )
    if user_id not in people.assignee_ids:
        raise NotFound()
    await session.execute(delete(TaskAssignee).where(TaskAssignee.task_id == task_id, TaskAssignee.user_id == user_id))
    await raise_version(session, task_id, now=now)
    await record(
        session,
        actor_id=actor.user_id,
        action="task_unassigned",
        target_type="task",
        target_id=task_id,
        now=now,
        client=client,
        changes={"assignee_id": (user_id, None)},
    )


# -- as a list -------------------------------------------------------------------------------------------------


async def replace_assignees(
    session: AsyncSession, *, task_id: UUID, present: Set[UUID], user_ids: Sequence[UUID], now: datetime
) -> bool:
    """Make these the assignees of a task that is locked and has those who are `present`. Returns whether they are
    others now. Raises as `check_assignees` does."""
    wanted = set(user_ids)
    if wanted == present:
        return False
    await check_assignees(session, user_ids=user_ids, already=present)
    if gone := present - wanted:
        await session.execute(
            delete(TaskAssignee).where(TaskAssignee.task_id == task_id, TaskAssignee.user_id.in_(gone))
        )
    new = [user_id for user_id in dict.fromkeys(user_ids) if user_id not in present]
    await add_assignees(session, task_id=task_id, user_ids=new, now=now)
    return True


async def add_assignees(session: AsyncSession, *, task_id: UUID, user_ids: Sequence[UUID], now: datetime) -> None:
    """Insert assignees who are checked, and new to the task."""
    if user_ids:
        await session.execute(
            insert(TaskAssignee),
            [{"task_id": task_id, "user_id": user_id, "assigned_at": now} for user_id in user_ids],
        )


async def check_assignees(
    session: AsyncSession,
    *,
    user_ids: Sequence[UUID],
    already: Set[UUID] = frozenset(),
    field: str = "/assignee_ids",
) -> None:
    """Raise `Invalid` that points, below `field`, at whoever is not there or not active (unless `already` assigned),
    or at `field` for too many."""
    if len(set(user_ids)) > MOST_ASSIGNEES:
        raise Invalid(FieldError(field, f"a task has at most {MOST_ASSIGNEES} assignees", "too_long"))
    known = await active_among(session, user_ids, or_any_of=already)
    unknown = [
        FieldError(f"{field}/{index}", "is nobody that you could assign", "not_found")
        for index, user_id in enumerate(user_ids)
        if user_id not in known
    ]
    if unknown:
        raise Invalid(*unknown)


async def active_among(
    session: AsyncSession, user_ids: Sequence[UUID], *, or_any_of: Set[UUID] = frozenset()
) -> Set[UUID]:
    """Which of these people have an active account (or are among others), and have it until this transaction ends."""
    if not user_ids:
        return frozenset()
    # Locked for sharing: who is being deleted just now loses their tasks in a transaction of its own, which must not
    # end between this look and the row that follows from it.
    query = (
        select(User.id)
        .where(User.id.in_(set(user_ids)), or_(User.status == AccountStatus.ACTIVE.value, User.id.in_(or_any_of)))
        .with_for_update(read=True)
    )
    return set((await session.execute(query)).scalars())
