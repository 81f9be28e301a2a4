"""One's own profile."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, union, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task, TaskAssignee, User
from scheduler.access import Actor
from scheduler.accounts import names
from scheduler.tasks.versions import raise_versions


async def get_profile(session: AsyncSession, *, actor: Actor, for_update: bool = False) -> User:
    """The actor's own row."""
    query = select(User).where(User.id == actor.user_id)
    return (await session.execute(query.with_for_update() if for_update else query)).scalar_one()


async def change_profile(session: AsyncSession, *, actor: Actor, changes: Mapping[str, Any], now: datetime) -> User:
    """Change `name`, `bio`, `phone`, `timezone`, `locale` (those given). A new phone number is not verified; a
    new name raises the versions of the tasks whose answers show it."""
    user = await get_profile(session, actor=actor, for_update=True)
    values = {key: value for key, value in changes.items() if getattr(user, key) != value}
    if values:
        if "phone" in values:
            values["phone_verified_at"] = None
        if "name" in values:
            values["name_folded"] = names.folded(values["name"])
        await session.execute(update(User).where(User.id == user.id).values(**values, updated_at=now))
        if "name" in values:
            await _raise_versions(session, user.id)
        for key, value in {**values, "updated_at": now}.items():
            setattr(user, key, value)
        session.expunge(user)
    return user


async def _raise_versions(session: AsyncSession, user_id: UUID) -> None:
    """Of all tasks that name this person: whoever made them or is assigned."""
    # Two indexes, one each. Assigning waits for the person's row (its foreign key), which is locked here.
    made = select(Task.id).where(Task.creator_id == user_id)
    assigned = select(TaskAssignee.task_id).where(TaskAssignee.user_id == user_id)
    await raise_versions(session, (await session.execute(union(made, assigned))).scalars())
