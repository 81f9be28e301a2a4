"""One's own profile."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, union, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task, TaskAssignee, TaskShare, User
from scheduler.access import Actor
from scheduler.accounts import names
from scheduler.accounts.client import Client
from scheduler.accounts.revocation import revoke
from scheduler.activity.record import record
from scheduler.tasks.versions import raise_versions


async def get_profile(session: AsyncSession, *, actor: Actor, for_update: bool = False) -> User:
    """The actor's own row."""
    query = select(User).where(User.id == actor.user_id)
    return (await session.execute(query.with_for_update() if for_update else query)).scalar_one()


async def change_profile(
    session: AsyncSession, *, actor: Actor, changes: Mapping[str, Any], now: datetime, client: Client | None = None
) -> User:
    """Change `name`, `bio`, `phone`, `timezone`, `locale` (those given). A new phone number is not verified; a
    new name raises the versions of the tasks whose answers show it."""
    user = await get_profile(session, actor=actor, for_update=True)
    values = {key: value for key, value in changes.items() if getattr(user, key) != value}
    if values:
        changed = {key: (getattr(user, key), value) for key, value in values.items()}
        values = await write_profile(session, user_id=user.id, values=values, now=now)
        await record(
            session,
            actor_id=actor.user_id,
            action="profile_changed",
            target_type="user",
            target_id=user.id,
            now=now,
            client=client,
            changes=changed,
        )
        for key, value in values.items():
            setattr(user, key, value)
        session.expunge(user)
    return user


async def write_profile(
    session: AsyncSession, *, user_id: UUID, values: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """Write these columns of a person whose row is locked, with what follows from them. Returns all that it wrote."""
    written = {**values, "updated_at": now}
    if "phone" in values:
        written["phone_verified_at"] = None
    if "name" in values:
        written["name_folded"] = names.folded(values["name"])
    await session.execute(update(User).where(User.id == user_id).values(**written))
    if "name" in values:
        await raise_versions_naming(session, user_id)
    if "timezone" in values:
        revoke(session, user_id)  # it is remembered with the sign-in, as every "today" is by it
    return written


async def raise_versions_naming(session: AsyncSession, user_id: UUID) -> None:
    """Of all tasks whose answers name this person: whoever made them, is assigned, or has a share in them."""
    # Three indexes, one each. Assigning waits for the person's row (its foreign key), which is locked here.
    made = select(Task.id).where(Task.creator_id == user_id)
    assigned = select(TaskAssignee.task_id).where(TaskAssignee.user_id == user_id)
    shared = select(TaskShare.task_id).where(TaskShare.user_id == user_id)
    await raise_versions(session, (await session.execute(union(made, assigned, shared))).scalars())
