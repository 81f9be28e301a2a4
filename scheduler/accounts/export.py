"""A person's export: asked for, made by a job, kept for a day as a file in the storage."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import AccountExport, Run, User
from models.run import UNFINISHED, RunTrigger
from models.user import AccountStatus
from scheduler.access import Actor
from scheduler.accounts.avatar import forget_file
from scheduler.accounts.client import Client
from scheduler.accounts.export_archive import write_archive
from scheduler.accounts.export_contents import Person
from scheduler.activity.record import record
from scheduler.clock import now as present
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.effect import succeed_with
from scheduler.runs.enqueue import enqueue
from scheduler.runs.jobs import JobName
from scheduler.runs.running import JobFailed, RunningJob, RunTaken
from scheduler.storage import Storage

FOLDER = "exports"
"""In the storage; in it one folder a person."""
KEPT = timedelta(hours=24)
"""The contract's section 4."""
MEDIA_TYPE = "application/zip"

_EXPORT = AccountExport.__table__
_STATES = [state.value for state in UNFINISHED]


class Export(NamedTuple):
    """A person's export: made (then it has a key), or being made."""

    run_id: UUID
    storage_key: str | None
    made_at: datetime | None


async def find_export(session: AsyncSession, *, actor: Actor, now: datetime) -> Export | None:
    """The actor's export; None where there is none, it is too old, or the run that was to make it has failed."""
    query = (
        select(_EXPORT.c.run_id, _EXPORT.c.storage_key, _EXPORT.c.expires_at, Run.state)
        .outerjoin(Run, Run.id == _EXPORT.c.run_id)
        .where(_EXPORT.c.user_id == actor.user_id)
    )
    row = (await session.execute(query)).one_or_none()
    if row is None:
        return None
    if row.storage_key is not None:
        return Export(row.run_id, row.storage_key, row.expires_at - KEPT) if row.expires_at > now else None
    return Export(row.run_id, None, None) if row.state in _STATES else None


async def ask_for_export(
    session: AsyncSession,
    *,
    actor: Actor,
    lost: str | None = None,
    client: Client,
    request_id: str | None = None,
    now: datetime,
) -> UUID:
    """Have an export of the actor made, unless there is one; returns the id of its run.

    `lost`: the key of one that the storage does not have any more.
    """
    # One at a time: two that ask at once get the same.
    await session.execute(select(User.id).where(User.id == actor.user_id).with_for_update())
    found = await find_export(session, actor=actor, now=now)
    if found is not None and (found.storage_key is None or found.storage_key != lost):
        return found.run_id
    run_id = await enqueue(
        session,
        job=JobName.EXPORT_ACCOUNT,
        trigger=RunTrigger.EVENT,
        owner_id=actor.user_id,
        request_id=request_id,
        now=now,
    )
    await _write(
        session, actor.user_id, run_id=run_id, requested_at=now, storage_key=None, size=None, expires_at=now + KEPT
    )
    await record(
        session,
        actor_id=actor.user_id,
        action="export_requested",
        target_type="user",
        target_id=actor.user_id,
        now=now,
        client=client,
    )
    return run_id


async def make_export(
    database: Database, *, storage: Storage, run: RunningJob, clock: Callable[[], datetime] = present
) -> dict[str, Any]:
    """Make the export of the run's owner, store it, and end the run. Returns its result: `size` and `expires_at`.

    Raises JobFailed where there is nobody to export, StorageAway, and RunTaken.
    """
    person, avatar = await _person(database, run)
    key = f"{FOLDER}/{person.id.hex}/{new_id().hex[-16:]}.zip"
    with storage.spooled() as file:
        await write_archive(
            file,
            database=database,
            storage=storage,
            person=person,
            avatar=avatar,
            now=clock(),
            report=run.report_progress,
        )
        size = file.seek(0, os.SEEK_END)
        await storage.put_file(key, file)
    before: str | None = None

    async def effect(session: AsyncSession) -> dict[str, Any]:
        nonlocal before
        status = select(User.status).where(User.id == person.id).with_for_update()
        if (await session.execute(status)).scalar_one_or_none() in (None, AccountStatus.ERASED.value):
            raise _nobody()
        query = select(_EXPORT.c.storage_key).where(_EXPORT.c.user_id == person.id)
        before = (await session.execute(query)).scalar_one_or_none()
        expires_at = clock() + KEPT
        await _write(session, person.id, run_id=run.id, storage_key=key, size=size, expires_at=expires_at)
        return {"size": size, "expires_at": expires_at.isoformat()}

    try:
        result = await succeed_with(database, run=run, effect=effect, clock=clock)
    except (JobFailed, RunTaken):  # after anything else the row may name it all the same
        await forget_file(storage, key)
        raise
    if before is not None:
        await forget_file(storage, before)
    return result


async def _person(database: Database, run: RunningJob) -> tuple[Person, str | None]:
    async with database.read() as session:
        query = select(User.id, User.email, User.avatar_key, User.status).where(User.id == run.owner_id)
        row = (await session.execute(query)).one_or_none()
    if row is None or row.status == AccountStatus.ERASED.value:
        raise _nobody()
    return Person(row.id, row.email), row.avatar_key


def _nobody() -> JobFailed:
    return JobFailed("There is nobody any more whom this could be about.", permanent=True)


async def _write(session: AsyncSession, user_id: UUID, **columns: Any) -> None:
    """Make or change the person's row, whose person is locked."""
    there = await session.execute(select(_EXPORT.c.user_id).where(_EXPORT.c.user_id == user_id))
    if there.one_or_none() is not None:
        await session.execute(update(_EXPORT).where(_EXPORT.c.user_id == user_id).values(**columns))
    else:
        columns.setdefault("requested_at", columns["expires_at"] - KEPT)
        await session.execute(insert(_EXPORT).values(user_id=user_id, **columns))
