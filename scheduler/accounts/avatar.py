"""A person's picture: a file in the storage, named by the person's row.

The file is there before the row names it, and goes after the row has stopped to. What is left when a process dies in
between is nobody's, and the cleanup finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.users import get_user
from scheduler.activity.record import record
from scheduler.database import Database
from scheduler.errors import NotFound, PunctualError
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.storage import Storage, StorageAway

FOLDER = "avatars"
"""In the storage; in it one folder a person."""

log = get_logger("accounts")

Check = Callable[[Row[Any]], None]
"""Raises when the person, as they are, are not to be changed."""


def version_of(key: str) -> str:
    """What tells this picture from the person's others, from its key."""
    return key.rpartition("/")[2]


async def find_avatar(session: AsyncSession, *, user_id: UUID) -> str:
    """The key of a person's picture. Raises NotFound where there is no such person, or they have none."""
    key: str | None = (await get_user(session, user_id=user_id)).avatar_key
    if key is None:
        raise NotFound("There is no picture of this person.")
    return key


async def set_avatar(
    database: Database,
    storage: Storage,
    *,
    actor: Actor,
    picture: bytes,
    check: Check = lambda present: None,
    client: Client,
    now: datetime,
) -> Row[Any]:
    """Make `picture` (of `Pictures.make`) the actor's, instead of any before it. Returns the person.

    Raises what `check` raises, and StorageAway; then nothing is changed.
    """
    key = f"{FOLDER}/{actor.user_id.hex}/{new_id().hex[-16:]}"
    await storage.put(key, picture)
    try:
        before, person = await database.retry_write(
            lambda session: _replace(session, actor=actor, key=key, check=check, client=client, now=now)
        )
    except PunctualError:  # refused; after anything else the row may name it all the same
        await forget_file(storage, key)
        raise
    if before is not None:
        await forget_file(storage, before)
    return person


async def remove_avatar(
    database: Database,
    storage: Storage,
    *,
    actor: Actor,
    check: Check = lambda present: None,
    client: Client,
    now: datetime,
) -> None:
    """Take the actor's picture away. Raises NotFound where there is none, and what `check` raises."""
    before, _ = await database.retry_write(
        lambda session: _replace(session, actor=actor, key=None, check=check, client=client, now=now)
    )
    if before is not None:
        await forget_file(storage, before)


async def forget_file(storage: Storage, key: str) -> None:
    """Delete a file that no row names any more. Where that can't be done now, the cleanup does it later."""
    try:
        await storage.delete(key)
    except StorageAway:
        log.warning("file.left_behind", key=key)


async def _replace(
    session: AsyncSession, *, actor: Actor, key: str | None, check: Check, client: Client, now: datetime
) -> tuple[str | None, Row[Any]]:
    """Returns the key before, and the person after."""
    present = await get_user(session, user_id=actor.user_id, for_update=True)
    check(present)
    before: str | None = present.avatar_key
    if key is None and before is None:
        raise NotFound("You have no picture.")
    change = update(User.__table__).where(User.id == actor.user_id)
    await session.execute(change.values(avatar_key=key, updated_at=now))
    await record(
        session,
        actor_id=actor.user_id,
        action="avatar_changed" if key else "avatar_removed",
        target_type="user",
        target_id=actor.user_id,
        now=now,
        client=client,
    )
    return before, await get_user(session, user_id=actor.user_id)
