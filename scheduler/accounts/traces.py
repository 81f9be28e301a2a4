"""What an erased person left behind in other tables: found by indexes, removed a little at a time.

What was theirs alone goes. What is part of others' tasks stays, without anything that says who they were. To add a
table: a line in `_TRACES`, by a column that has an index.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from models import (
    AccountExport,
    Activity,
    Delivery,
    Email,
    IdempotencyKey,
    LogRecord,
    RefreshToken,
    Reminder,
    Run,
    Session,
    Task,
    TaskAssignee,
    TaskShare,
    User,
)
from models.reminder import Audience
from models.run import UNFINISHED, RunState
from models.user import AccountStatus
from scheduler.accounts import avatar, export
from scheduler.clock import EARLIEST
from scheduler.database import Database, affected
from scheduler.storage import Storage
from scheduler.tasks.versions import raise_versions

AT_ONCE = 500
REST = 1.0
"""As a share of the time that a batch took: others come to their turn."""
SHOWN_CHANGES = ("role", "status")
"""Of what administrators did to the person, so much is kept: it tells what happened, and not to whom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Rows of one table that go with a person."""

    name: str
    key: InstrumentedAttribute[Any]
    of: Callable[[UUID], ColumnElement[bool]]


def _is_of_others(user_id: UUID) -> ColumnElement[bool]:
    """What the person did to what is still there and not theirs alone."""
    to_a_task = and_(Activity.target_type == "task", exists().where(Task.id == Activity.target_id))
    to_somebody = and_(Activity.target_type == "user", Activity.target_id != user_id)
    return or_(to_a_task, to_somebody)


_FINAL = [state.value for state in RunState if state not in UNFINISHED]

_TRACES = (
    # Before what refers to them: what was done to tasks that are gone is gone too.
    Trace(
        name="tasks",
        key=Task.id,
        of=lambda user_id: and_(Task.creator_id == user_id, Task.deleted_at == EARLIEST),
    ),
    Trace(
        name="refresh_tokens",
        key=RefreshToken.digest,
        of=lambda user_id: RefreshToken.session_id.in_(select(Session.id).where(Session.user_id == user_id)),
    ),
    Trace(name="sessions", key=Session.id, of=lambda user_id: Session.user_id == user_id),
    Trace(
        name="idempotency_keys",
        key=IdempotencyKey.digest,
        of=lambda user_id: IdempotencyKey.user_id == user_id,
    ),
    Trace(
        name="reminders",
        key=Reminder.id,
        of=lambda user_id: and_(Reminder.user_id == user_id, Reminder.audience == Audience.ME.value),
    ),
    Trace(name="emails", key=Email.id, of=lambda user_id: Email.user_id == user_id),
    Trace(name="deliveries", key=Delivery.id, of=lambda user_id: Delivery.user_id == user_id),
    Trace(
        # With what they were asked to do, and what came of it. One that is under way goes the next time.
        name="runs",
        key=Run.id,
        of=lambda user_id: and_(Run.owner_id == user_id, Run.state.in_(_FINAL)),
    ),
    Trace(
        name="activity",
        key=Activity.id,
        of=lambda user_id: and_(Activity.actor_id == user_id, not_(_is_of_others(user_id))),
    ),
    Trace(name="log_records", key=LogRecord.id, of=lambda user_id: LogRecord.user_id == user_id),
)


async def remove_traces(database: Database, *, user_id: UUID, storage: Storage) -> Counter[str]:
    """Remove what an erased person left behind. Returns how many rows of each kind went.

    Does nothing to somebody who is not erased. Doing it again finds what has come since.
    """
    counts: Counter[str] = Counter()
    async with database.read() as session:
        query = select(User.id).where(User.id == user_id, User.status == AccountStatus.ERASED.value)
        if (await session.execute(query)).one_or_none() is None:
            return counts
    counts["files"] = await _remove_files(database, user_id, storage)
    for model in (TaskAssignee, TaskShare):
        counts["places"] += await _leave(database, model, user_id)
    for trace in _TRACES:
        counts[trace.name] += await _remove(database, trace, user_id)
    await _blur_own_activity(database, user_id)
    await _blur_activity_of_admins(database, user_id)
    return counts


# -- a little at a time --------------------------------------------------------------------------------------


async def _remove(database: Database, trace: Trace, user_id: UUID) -> int:
    table = trace.key.class_.__table__
    removed = 0
    while True:
        began = time.monotonic()
        async with database.read() as session:
            query = select(trace.key).where(trace.of(user_id)).limit(AT_ONCE)
            keys = (await session.execute(query)).scalars().all()
        if not keys:
            return removed
        gone = delete(table).where(trace.key.in_(sorted(keys)), trace.of(user_id))
        count = await database.retry_write(partial(_affected, statement=gone))
        removed += count
        if len(keys) < AT_ONCE or not count:
            return removed
        await _rest(began)


async def _leave(database: Database, model: type[TaskAssignee] | type[TaskShare], user_id: UUID) -> int:
    """Give up a place that the person was given while they were erased: whoever gave it could not see that yet."""
    table = model.__table__

    async def work(session: AsyncSession) -> int:
        query = select(table.c.task_id).where(table.c.user_id == user_id)
        task_ids = (await session.execute(query)).scalars().all()
        if task_ids:
            await raise_versions(session, task_ids)
            await session.execute(delete(table).where(table.c.user_id == user_id))
        return len(task_ids)

    return await database.retry_write(work)


async def _remove_files(database: Database, user_id: UUID, storage: Storage) -> int:
    """The person's pictures and exports, those too that no row names. The rows last: as long as a file is there, the
    next run looks for it."""
    removed = 0
    for folder in (avatar.FOLDER, export.FOLDER):
        async for page in storage.pages(f"{folder}/{user_id.hex}"):
            for file in page:
                await storage.delete(file.key)
                removed += 1

    async def work(session: AsyncSession) -> None:
        await session.execute(update(User.__table__).where(User.id == user_id).values(avatar_key=None))
        await session.execute(delete(AccountExport.__table__).where(AccountExport.user_id == user_id))

    await database.retry_write(work)
    return removed


async def _blur_own_activity(database: Database, user_id: UUID) -> None:
    """Of what the person did to what is others' too, where from and with what goes."""
    told = or_(Activity.ip.is_not(None), Activity.user_agent.is_not(None))
    while True:
        began = time.monotonic()
        async with database.read() as session:
            query = select(Activity.id).where(Activity.actor_id == user_id, told).limit(AT_ONCE)
            ids = (await session.execute(query)).scalars().all()
        if not ids:
            return
        blurred = update(Activity.__table__).where(Activity.id.in_(sorted(ids))).values(ip=None, user_agent=None)
        await database.retry_write(partial(_affected, statement=blurred))
        await _rest(began)


async def _blur_activity_of_admins(database: Database, user_id: UUID) -> None:
    """Of what was done to the account, old and new values that may say whose it was go."""
    last = UUID(int=0)
    while True:
        async with database.read() as session:
            query = select(Activity.id, Activity.changes).where(Activity.target_id == user_id, Activity.id > last)
            rows = (await session.execute(query.order_by(Activity.id).limit(AT_ONCE))).all()
        if not rows:
            return
        last = rows[-1].id
        kept = {row.id: {key: row.changes[key] for key in SHOWN_CHANGES if key in row.changes} for row in rows}
        if changes := {row.id: kept[row.id] for row in rows if kept[row.id] != row.changes}:
            await database.retry_write(partial(_rewrite, changes=changes))


async def _rewrite(session: AsyncSession, *, changes: Mapping[UUID, dict[str, Any]]) -> None:
    for activity_id, kept in changes.items():
        await session.execute(update(Activity.__table__).where(Activity.id == activity_id).values(changes=kept))


async def _affected(session: AsyncSession, *, statement: Any) -> int:
    return affected(await session.execute(statement))


async def _rest(began: float) -> None:
    await asyncio.sleep((time.monotonic() - began) * REST)
