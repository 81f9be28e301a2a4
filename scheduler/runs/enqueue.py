"""Asking for runs: a row in the transaction of whatever causes it. That row is the outbox; Redis only carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, or_, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState, RunTrigger
from scheduler.database import WAKE_WORKERS
from scheduler.identifiers import new_id
from scheduler.runs.jobs import JOBS


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that is asked for."""

    id: UUID = field(default_factory=new_id)
    job: str
    trigger: RunTrigger
    state: RunState = RunState.QUEUED
    """`queued`, `blocked` behind an earlier run of its schedule, or `skipped` with a `result` that says why."""
    arguments: Mapping[str, Any] | None = None
    owner_id: UUID | None = None
    schedule_id: UUID | None = None
    scheduled_for: datetime | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    """As long as the run is kept, asking again with the same key gives this run."""
    retry_of: UUID | None = None
    result: Mapping[str, Any] | None = None


async def enqueue(session: AsyncSession, *, now: datetime, **fields: Any) -> UUID:
    """Ask for one run (the fields of `NewRun`); returns its id.

    Where the idempotency key, or the job (declared unique, with an unfinished run), has a run already, returns that
    one's.
    """
    new = NewRun(**fields)
    row = _row(new, now)
    try:
        # Without a savepoint: the statement alone is undone. A deadlock ends the transaction with its savepoints, and
        # would then show as one that is missing, which nobody tries again.
        await session.execute(insert(Run.__table__), [row])
    except IntegrityError:
        same = [
            column == row[column.key] for column in (Run.idempotency_key, Run.unique_key) if row[column.key] is not None
        ]
        # Both may have one: that of the key is then the older, as it must have ended before the other was made.
        query = select(Run.id).where(or_(*same)).order_by(Run.id).limit(1)
        found = (await session.execute(query)).scalar_one_or_none() if same else None
        if found is None:
            raise
        return found
    session.info[WAKE_WORKERS] = True
    return UUID(str(row["id"]))


async def enqueue_many(session: AsyncSession, runs: Sequence[NewRun], *, now: datetime) -> int:
    """Ask for many at once. A firing (schedule, scheduled time) that has its run already is left out.

    Returns how many were made.
    """
    if not runs:
        return 0
    table = Run.__table__
    rows = [_row(new, now) for new in runs]
    if session.get_bind().dialect.name == "mysql":
        # Not INSERT IGNORE: that would swallow every other error as well.
        await session.execute(mysql.insert(table).on_duplicate_key_update(id=table.c.id), rows)
    else:
        await session.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)
    ids = [row["id"] for row in rows]
    made: int = (await session.execute(select(func.count()).where(Run.id.in_(ids)))).scalar_one()
    session.info[WAKE_WORKERS] = True
    return made


def _row(new: NewRun, now: datetime) -> dict[str, Any]:
    job = JOBS[new.job]
    is_skipped = new.state is RunState.SKIPPED
    return {
        "id": new.id,
        "job": job.name,
        "trigger": new.trigger.value,
        "state": new.state.value,
        "queue": job.queue,
        "priority": job.priority,
        "owner_id": new.owner_id,
        "arguments": None if new.arguments is None else dict(new.arguments),
        "schedule_id": new.schedule_id,
        "scheduled_for": new.scheduled_for,
        "unique_key": job.name if job.is_unique and not is_skipped else None,
        "idempotency_key": new.idempotency_key,
        "attempt": 0,
        "max_attempts": job.attempts,
        "seq": 0,
        "available_at": None,
        "queued_at": now,
        "started_at": None,
        "finished_at": now if is_skipped else None,
        "duration_ms": 0 if is_skipped else None,
        "worker": None,
        "cancel_requested_at": None,
        "progress_done": 0,
        "progress_total": 0,
        "result": None if new.result is None else dict(new.result),
        "error": None,
        "retry_of": new.retry_of,
        "request_id": new.request_id,
    }
