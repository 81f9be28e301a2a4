"""The ledger of what a worker does by itself each second: a run when there was something to do, and exactly one end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState, RunTrigger
from scheduler.database import AFTER_COMMIT, Database
from scheduler.identifiers import new_id
from scheduler.runs.jobs import JOBS, JobName
from scheduler.runs.running import AT_WORK, RunningJob
from scheduler.runs.settle import Outcome, error_of, log_end, settle, write_end


async def begin(session: AsyncSession, *, job: JobName, worker: str, now: datetime) -> RunningJob:
    """Record that `worker` has begun a run, in the transaction of what it does first.

    A tick that finds nothing to do is no run: it leaves no row. Only once that commits is this process at the run: what
    a commit left behind that landed though it looked failed, the next look at what this worker is at finds.
    """
    run = RunningJob(id=new_id(), job=job, trigger=RunTrigger.CRON.value, attempt=1, started_at=now, worker=worker)
    declared = JOBS[job]
    await session.execute(
        insert(Run.__table__),
        [
            {
                "id": run.id,
                "job": run.job,
                "trigger": run.trigger,
                "state": RunState.RUNNING.value,
                "queue": declared.queue,
                "priority": declared.priority,
                "attempt": run.attempt,
                "max_attempts": run.max_attempts,
                "seq": run.seq,
                "queued_at": now,
                "started_at": now,
                "worker": worker,
                "progress_done": 0,
                "progress_total": 0,
            }
        ],
    )
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: AT_WORK.add(run.key))
    return run


async def succeed(database: Database, *, run: RunningJob, result: Mapping[str, Any], now: datetime) -> None:
    """End the run well; `result` is kept as JSON. The record of its end is written once it is committed."""
    await _end(database, Outcome(run, RunState.SUCCEEDED, now, dict(result)))


async def fail(database: Database, *, run: RunningJob, error: BaseException, now: datetime) -> None:
    """End the run badly, with what went wrong."""
    await _end(database, Outcome(run, RunState.FAILED, now, error=error_of(error)))


async def _end(database: Database, outcome: Outcome) -> None:
    try:
        ended = await write_end(database, lambda session: settle(session, outcomes=[outcome]))
    finally:
        # Where the end could not be written, the next look at what this worker is at finds nobody at this run.
        AT_WORK.discard(outcome.run.key)
    for each in ended:
        log_end(each)
