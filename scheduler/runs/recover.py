"""Recovering runs: what dead workers were at, and what nobody ever began."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, Worker
from models.run import RunState, RunTrigger
from scheduler.database import AFTER_COMMIT, WAKE_WORKERS
from scheduler.logs import get_logger
from scheduler.runs.dispatch import Dispatched, return_everything_of, return_unbegun
from scheduler.runs.jobs import JOBS
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Outcome, log_end, metrics, write_attempts

DEAD_AFTER_S = 10.0
"""Seconds in which a living worker beats ten times. With the reaper's own second, a dead one is noticed within 15 s."""
UNBEGUN_AFTER_S = 30.0
"""How long a dispatched run may be on its way."""
LONGEST_GAP_S = 4.0
"""Seconds between two looks beyond which what was seen before proves nothing: nobody looked, or nobody could."""
MOST = 1000


log = get_logger("runs")


class Sighting(NamedTuple):
    """A worker as the database shows it: `beat` None where only its runs speak of it."""

    name: str
    beat: int | None


class Watch:
    """Tells by its own monotonic clock what has not changed for too long: no wall clocks are compared, so that none
    can be wrong.

    `me` is the worker that watches: where its own beat stands still, the database takes no writes (or not from here),
    and the silence of the others proves nothing.
    """

    def __init__(
        self,
        *,
        me: str | None = None,
        dead_after_s: float = DEAD_AFTER_S,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me = me
        self._dead_after_s = dead_after_s
        self._my_beat: Sighting | None = None
        self._my_beat_since = 0.0
        self._seconds = seconds
        self._looked_at: float | None = None
        self._workers: dict[Sighting, float] = {}
        self._dispatched: dict[Dispatched, float] = {}

    async def look(self, session: AsyncSession) -> tuple[list[Sighting], list[Dispatched]]:
        """The workers that are dead, and the runs that nobody has begun in time."""
        running = select(Run.worker).where(Run.state == RunState.RUNNING.value).distinct()
        sightings = {Sighting(row.name, row.beat) for row in await session.execute(select(Worker.name, Worker.beat))}
        known = {each.name for each in sightings}
        unknown = {name for name in (await session.execute(running)).scalars() if name is not None} - known
        sightings |= {Sighting(name, None) for name in unknown}
        query = select(Run.id, Run.seq).where(Run.state == RunState.DISPATCHED.value).limit(10 * MOST)
        dispatched = {Dispatched(row.id, row.seq) for row in await session.execute(query)}
        at = self._seconds()
        if self._looked_at is None or at - self._looked_at > LONGEST_GAP_S:
            self._workers, self._dispatched = {}, {}
        self._looked_at = at
        mine = next((each for each in sightings if each.name == self._me and each.beat is not None), None)
        if mine != self._my_beat:
            self._my_beat, self._my_beat_since = mine, at
        if mine is not None and at - self._my_beat_since > LONGEST_GAP_S:
            self._workers = {}
        self._workers = {each: self._workers.get(each, at) for each in sightings}
        self._dispatched = {each: self._dispatched.get(each, at) for each in dispatched}
        return (
            [each for each, since in self._workers.items() if at - since >= self._dead_after_s],
            [each for each, since in self._dispatched.items() if at - since >= UNBEGUN_AFTER_S],
        )


async def bury(session: AsyncSession, *, dead: Sighting, now: datetime, error: dict[str, Any] | None = None) -> int:
    """Take over what a dead worker was at, and forget the worker. Returns how many runs it was at.

    Each goes into quarantine, to be tried alone next; one whose attempts are spent is `lost`, or `failed` where an
    `error` says what the worker died of. What it had dispatched is queued again: Redis may have lost the word of
    it, and where it has not, whoever hears it comes too late by the number.
    """
    beat = select(Worker.beat).where(Worker.name == dead.name).with_for_update()
    if (await session.execute(beat)).scalar_one_or_none() != dead.beat:
        return 0  # it lives after all
    query = (
        select(Run.__table__)
        .where(Run.state == RunState.RUNNING.value, Run.worker == dead.name)
        .limit(MOST)
        .with_for_update(skip_locked=True)
    )
    rows = (await session.execute(query)).all()
    await _lose(session, rows, now=now, error=error)
    if await return_everything_of(session, worker=dead.name):
        session.info[WAKE_WORKERS] = True
    if len(rows) < MOST:
        await session.execute(delete(Worker.__table__).where(Worker.name == dead.name))
    return len(rows)


async def disown(
    session: AsyncSession,
    *,
    attempts: Sequence[tuple[UUID, int]],
    worker: str,
    now: datetime,
    state: RunState = RunState.QUEUED,
) -> int:
    """Give back, as `state`, what a living worker is said to be at and is not: nobody began it, so the attempt does not
    count.

    A run that a tick began by itself has no end because that could not be written: it is lost. Returns how many.
    """
    query = (
        select(Run.__table__)
        .where(
            Run.id.in_([run_id for run_id, _ in attempts]),
            Run.state == RunState.RUNNING.value,
            Run.worker == worker,
        )
        .with_for_update(skip_locked=True)
    )
    rows = [row for row in await session.execute(query) if (row.id, row.seq) in attempts]
    ticks = [row for row in rows if _is_of_tick(row)]
    stopped = [row for row in rows if row.cancel_requested_at is not None and not _is_of_tick(row)]
    await _end(session, ticks, RunState.LOST, now=now, error=None)
    await _end(session, stopped, RunState.CANCELLED, now=now, error=None)
    unbegun = [row.id for row in rows if row.cancel_requested_at is None and not _is_of_tick(row)]
    if unbegun:
        await session.execute(
            update(Run.__table__)
            .where(Run.id.in_(unbegun))
            .values(state=state.value, worker=None, started_at=None, attempt=Run.attempt - 1, seq=Run.seq + 1)
        )
        session.info[WAKE_WORKERS] = True
    return len(rows)


async def recover_unbegun(session: AsyncSession, *, dispatched: Sequence[Dispatched]) -> int:
    """Queue again what was on its way for too long. Returns how many."""
    return await return_unbegun(session, dispatched=dispatched[:MOST])


async def _lose(
    session: AsyncSession,
    rows: Sequence[Any],
    *,
    now: datetime,
    error: dict[str, Any] | None,
) -> None:
    again = [row for row in rows if row.attempt < row.max_attempts and row.cancel_requested_at is None]
    spent = [row for row in rows if row.attempt >= row.max_attempts and row.cancel_requested_at is None]
    stopped = [row for row in rows if row.cancel_requested_at is not None]
    await _end(session, stopped, RunState.CANCELLED, now=now, error=None)
    await _end(session, spent, RunState.LOST if error is None else RunState.FAILED, now=now, error=error)
    if not again:
        return
    await session.execute(
        update(Run.__table__)
        .where(Run.id.in_([row.id for row in again]))
        .values(state=RunState.QUARANTINED.value, worker=None, seq=Run.seq + 1, error=error)
    )
    await write_attempts(
        session,
        [
            {
                "run_id": row.id,
                "seq": row.seq,
                "number": row.attempt,
                "state": (RunState.LOST if error is None else RunState.FAILED).value,
                "worker": row.worker,
                "started_at": row.started_at,
                "finished_at": now,
                "error": error,
            }
            for row in again
        ],
    )
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: _tell_of_lost(again))


def _tell_of_lost(rows: Sequence[Any]) -> None:
    """Their attempts are lost; others follow."""
    for row in rows:
        log.warning("run.attempt_lost", worker=row.worker, **_running(row).log_context())
        metrics.lost(job=row.job)
        metrics.retried(job=row.job)


async def _end(
    session: AsyncSession, rows: Sequence[Any], state: RunState, *, now: datetime, error: dict[str, Any] | None
) -> None:
    for row in rows:
        outcome = Outcome(_running(row), state, now, error=error)
        await session.execute(
            update(Run.__table__)
            .where(Run.id == row.id)
            .values(
                state=state.value,
                finished_at=now,
                duration_ms=outcome.duration_ms,
                error=error,
                unique_key=None,
                # Or who was at it would take this end for its own that landed, and tell of it once more.
                seq=Run.seq + 1,
            )
        )
        session.info.setdefault(AFTER_COMMIT, []).append(lambda outcome=outcome: log_end(outcome))


def _is_of_tick(row: Any) -> bool:
    """Whether a worker's tick began it by itself: what somebody asked for goes through the queue like any run."""
    return row.job in JOBS and JOBS[row.job].is_tick and row.trigger == RunTrigger.CRON.value


def _running(row: Any) -> RunningJob:
    return RunningJob(
        id=row.id,
        job=row.job,
        trigger=row.trigger,
        attempt=row.attempt,
        started_at=row.started_at or row.queued_at,
        worker=row.worker or "",
        seq=row.seq,
        owner_id=row.owner_id,
        request_id=row.request_id,
    )
