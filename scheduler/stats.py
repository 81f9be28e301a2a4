"""The service at a glance, for operators: what waits, who is at work, how quick the servers answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from sqlalchemy import Row, func, literal, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models import Email, Reminder, Run, Worker
from models.email import EmailState
from models.reminder import ReminderState
from models.run import RunState
from scheduler.database import Database
from scheduler.newest import count_up_to, index_of
from scheduler.reminders.times import LATE_AFTER
from scheduler.runs.jobs import QUEUES
from scheduler.runs.read import QUEUED_STATES

MOST_SENT, MOST_OF_A_STATE = 100_000, 1_000_000
"""E-mails are counted up to here: the history of what was sent grows without end."""
REDIS_PATIENCE_S = 1.0
_UNTOLD = (ReminderState.PENDING.value, ReminderState.CLAIMED.value, ReminderState.SENDING.value)


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits in one queue: how many runs, and how long the oldest has been waiting (0 where none is)."""

    name: str
    depth: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A worker (a row of its table) and the runs that it is at."""

    row: Row[Any]
    running: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Stats:
    """All of it. Durations are of one round trip each; `redis_ms` is None while Redis is away."""

    queues: Sequence[Queue]
    workers: Sequence[WorkerNow]
    reminders_pending: int
    reminders_late: int
    emails: Mapping[str, int]
    database_ms: float
    redis_ms: float | None


async def read_stats(database: Database, *, redis: Redis | None, now: datetime) -> Stats:
    """Look at everything once: the database in one transaction, and Redis meanwhile."""
    asked = asyncio.create_task(_redis_ms(redis))
    try:
        async with database.read() as session:
            began = time.perf_counter()
            await session.execute(text("SELECT 1"))
            database_ms = _milliseconds(began)
            queues = await _queues(session, now)
            workers = await _workers(session)
            pending, late = await _reminders(session, now)
            emails = await _emails(session)
        return Stats(queues, workers, pending, late, emails, database_ms, await asked)
    finally:
        asked.cancel()


async def _queues(session: AsyncSession, now: datetime) -> list[Queue]:
    states = [state.value for state in QUEUED_STATES]
    counted = (
        select(Run.state, Run.queue, func.count().label("depth"))
        .where(Run.state.in_(states))
        .group_by(Run.state, Run.queue)
    )
    found = (await session.execute(counted)).all()
    depths = dict.fromkeys(QUEUES, 0)
    for row in found:
        depths[row.queue] = depths.get(row.queue, 0) + row.depth
    oldest: dict[str, datetime] = {}
    if found:
        # The beginning of the index of each state: only what is older and in another queue is passed over.
        table = Run.__table__
        hint = f"FORCE INDEX ({index_of(table.c.queued_at, 'state')})"
        firsts = [
            select(literal(row.queue).label("queue"), Run.queued_at)
            .with_hint(table, hint, "mysql")
            .where(Run.state == row.state, Run.queue == row.queue)
            .order_by(Run.queued_at)
            .limit(1)
            .subquery()
            for row in found
        ]
        for row in await session.execute(union_all(*(select(first) for first in firsts))):
            oldest[row.queue] = min(row.queued_at, oldest.get(row.queue, row.queued_at))
    return [Queue(name, depth, _age_s(oldest.get(name, now), now)) for name, depth in sorted(depths.items())]


async def _workers(session: AsyncSession) -> list[WorkerNow]:
    rows = (await session.execute(select(Worker.__table__).order_by(Worker.name))).all()
    at_work = select(Run.worker, Run.id).where(Run.state == RunState.RUNNING.value).order_by(Run.id)
    running: dict[str | None, list[UUID]] = {}
    for run in await session.execute(at_work):
        running.setdefault(run.worker, []).append(run.id)
    return [WorkerNow(row, running.get(row.name, [])) for row in rows]


async def _reminders(session: AsyncSession, now: datetime) -> tuple[int, int]:
    """Those still to come, and of them those whose time has passed by more than a minute."""
    to_come = select(func.count()).select_from(Reminder).where(Reminder.state.in_(_UNTOLD))
    late = to_come.where(Reminder.fire_at < now - LATE_AFTER)
    pending = (await session.execute(to_come)).scalar_one()
    return pending, (await session.execute(late)).scalar_one()


async def _emails(session: AsyncSession) -> dict[str, int]:
    """By state."""
    table = Email.__table__
    most = {state.value: MOST_SENT if state is EmailState.SENT else MOST_OF_A_STATE for state in EmailState}
    found = await session.execute(count_up_to(table.c.state, at=table.c.created_at, most=most))
    return {row.value: row[1] for row in found}


async def _redis_ms(redis: Redis | None) -> float | None:
    if redis is None:
        return None
    try:
        async with asyncio.timeout(REDIS_PATIENCE_S):
            await redis.ping()  # the first of a process connects too
            began = time.perf_counter()
            await redis.ping()
            return _milliseconds(began)
    except Exception:  # whatever it is, Redis does not answer, and that is what is asked
        return None


def _milliseconds(since: float) -> float:
    return round((time.perf_counter() - since) * 1000, 3)


def _age_s(since: datetime, now: datetime) -> float:
    return max(0.0, round((now - since).total_seconds(), 3))
