"""The ledger of runs: a row when a job begins to do something, and exactly one end."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState, RunTrigger
from scheduler.database import Database, affected
from scheduler.identifiers import new_id
from scheduler.logs import get_logger

LEASE = timedelta(seconds=15)
LONGEST_TRACEBACK = 10_000  # characters

log = get_logger("runs")


class JobName(StrEnum):
    """Every job, by the name that the contract gives it."""

    SEND_REMINDERS = "send_reminders"
    SEND_EMAILS = "send_emails"
    REAP = "reap"


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A run that this process is at."""

    id: UUID
    job: JobName
    trigger: RunTrigger
    attempt: int
    started_at: datetime

    def log_context(self) -> dict[str, Any]:
        """The fields that each record of the run carries."""
        return {
            "run_id": str(self.id),
            "job": self.job.value,
            "trigger": self.trigger.value,
            "attempt": self.attempt,
        }


async def begin(
    session: AsyncSession,
    *,
    job: JobName,
    worker: str,
    now: datetime,
    trigger: RunTrigger = RunTrigger.CRON,
    scheduled_for: datetime | None = None,
) -> RunningJob:
    """Record that `worker` has begun a run, in the transaction of what it does first.

    A tick that finds nothing to do is no run: it leaves no row.
    """
    run = RunningJob(new_id(), job, trigger, 1, now)
    await session.execute(
        insert(Run).values(
            id=run.id,
            job=job.value,
            trigger=trigger.value,
            state=RunState.RUNNING.value,
            attempt=run.attempt,
            scheduled_for=scheduled_for,
            queued_at=now,
            started_at=now,
            worker=worker,
            lease_until=now + LEASE,
        )
    )
    return run


async def keep(session: AsyncSession, *, run: RunningJob, now: datetime) -> None:
    """Keep the run's lease ahead."""
    await session.execute(
        update(Run).where(Run.id == run.id, Run.state == RunState.RUNNING.value).values(lease_until=now + LEASE)
    )


async def succeed(database: Database, *, run: RunningJob, result: Mapping[str, Any], now: datetime) -> None:
    """End the run well; `result` is kept as JSON. The record of its end is written once it is committed."""
    async with database.write() as session:
        ended = await _end(session, run=run, state=RunState.SUCCEEDED, now=now, result=dict(result))
    if ended:
        log.info(
            "run.succeeded", **run.log_context(), duration_ms=_milliseconds(run.started_at, now), result=dict(result)
        )


async def fail(database: Database, *, run: RunningJob, error: BaseException, now: datetime) -> None:
    """End the run badly, with what went wrong."""
    text = "".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:]
    kept = {"type": type(error).__name__, "message": str(error)[:2000], "traceback": text}
    async with database.write() as session:
        ended = await _end(session, run=run, state=RunState.FAILED, now=now, error=kept)
    if ended:
        log.error("run.failed", **run.log_context(), duration_ms=_milliseconds(run.started_at, now), error=kept)


async def reap_lost(database: Database, *, now: datetime, limit: int = 100) -> int:
    """End runs whose worker has let the lease run out, as `lost`. Returns how many."""
    query = (
        select(Run.id, Run.job, Run.trigger, Run.attempt, Run.started_at)
        .where(Run.state == RunState.RUNNING.value, Run.lease_until < now)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    async with database.write() as session:
        lost = [
            RunningJob(row.id, JobName(row.job), RunTrigger(row.trigger), row.attempt, row.started_at or now)
            for row in await session.execute(query)
        ]
        for run in lost:
            await _end(session, run=run, state=RunState.LOST, now=now)
    for run in lost:
        log.warning("run.lost", **run.log_context(), duration_ms=_milliseconds(run.started_at, now))
    return len(lost)


async def _end(session: AsyncSession, *, run: RunningJob, state: RunState, now: datetime, **columns: Any) -> bool:
    ended = await session.execute(
        update(Run)
        .where(Run.id == run.id, Run.state == RunState.RUNNING.value)
        .values(
            state=state.value,
            finished_at=now,
            duration_ms=_milliseconds(run.started_at, now),
            lease_until=None,
            **columns,
        )
    )
    return affected(ended) == 1


def _milliseconds(start: datetime, end: datetime) -> int:
    return max(0, round((end - start).total_seconds() * 1000))
