"""Performing runs: so many at once, each with its time-out, each with one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from structlog.contextvars import bind_contextvars

from models.run import RunState
from scheduler.clock import now as present
from scheduler.database import Database, DatabaseTimeout, is_retryable, is_unavailable
from scheduler.logs import get_logger
from scheduler.runs.backoff import Backoff
from scheduler.runs.dispatch import Dispatched, return_unbegun
from scheduler.runs.jobs import JOBS, Job
from scheduler.runs.running import AT_WORK, JobFailed, RunningJob, RunTaken
from scheduler.runs.settle import Outcome, Settler, check_result, error_of
from scheduler.runs.take import take

Perform = Callable[[RunningJob], Awaitable[dict[str, Any] | None]]
Ended = Callable[[Outcome], None]

TAKEN_AT_ONCE = 500
AFTER_OUTAGE = Backoff(base_s=2, cap_s=30, least_s=1)
"""When the database was away: the attempt does not count."""
MOST_HANDS = 50
"""How often a run may have changed hands (twice an attempt) until it counts all the same: a database that is away each
time that this job asks it something may be the job's own doing."""
UNKNOWN_JOB_AGAIN = timedelta(seconds=10)
"""A run of a job that this version does not know is left for a worker that does."""

log = get_logger("runs")


class Executor:
    """Performs the runs that it is told of, at most `concurrency` at once."""

    def __init__(
        self,
        database: Database,
        settler: Settler,
        *,
        worker: str,
        performers: Mapping[str, Perform],
        concurrency: int,
        freed: Callable[[], None] = lambda: None,
        hands_back_as: RunState = RunState.QUEUED,
        clock: Callable[[], datetime] = present,
    ) -> None:
        """`hands_back_as`: the state of a run that has to stop because this worker does."""
        self.worker = worker
        self.concurrency = concurrency
        self._database = database
        self._settler = settler
        self._performers = performers
        self._freed = freed
        self._hands_back_as = hands_back_as
        self._clock = clock
        self._reserved = 0
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: dict[tuple[UUID, int], tuple[RunningJob, asyncio.Task[None]]] = {}
        """By attempt: one that was taken from us may still be ending when we are given the run again."""
        self._cancelled: set[tuple[UUID, int]] = set()
        self._abandoned: set[tuple[UUID, int]] = set()
        self._beginning: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def free(self) -> int:
        """How many more it could begin."""
        return max(0, self.concurrency - self._reserved)

    @property
    def running(self) -> list[RunningJob]:
        """The runs that are under way."""
        return [run for run, _ in self._tasks.values()]

    async def begin(self, dispatched: Sequence[Dispatched]) -> None:
        """Begin these runs, those that are still to be begun, as there is room; returns when all are begun.

        Goes on when the caller is cancelled, as arq does with all it is at when Redis goes away: what is half begun
        would be nobody's, and what waits for room would lie there until it is missed.
        """
        task = asyncio.create_task(self._begin(list(dispatched)), name="begin runs")
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        await asyncio.shield(task)

    async def _begin(self, rest: list[Dispatched]) -> None:
        while rest:
            await self._room.wait()
            if self._stopping:
                await self._give_back(rest)
                return
            count = min(len(rest), self.free, TAKEN_AT_ONCE)
            if count == 0:
                self._room.clear()
                continue
            batch, rest = rest[:count], rest[count:]
            self._reserved += count
            taken: list[RunningJob] = []
            try:
                taken = await self._take(batch)
            finally:
                # Of those that somebody else has by now, the room is free again.
                self._release(count - len(taken))
            for run in taken:
                self.start(run, reserved=True)

    def start(self, run: RunningJob, *, reserved: bool = False) -> asyncio.Task[None]:
        """Perform a run that this worker has taken."""
        if not reserved:
            self._reserved += 1
        AT_WORK.add(run.key)
        task = asyncio.create_task(self._run(run), name=f"run {run.id}")
        self._tasks[run.key] = (run, task)
        return task

    def cancel(self, attempt: tuple[UUID, int]) -> None:
        """Stop a run because somebody asked for it: it ends as cancelled. `attempt`: its `key`."""
        if attempt in self._tasks and attempt not in self._cancelled:
            self._cancelled.add(attempt)
            self._cancel_soon(self._tasks[attempt][1])

    def abandon(self, attempt: tuple[UUID, int]) -> None:
        """Stop a run that is no longer ours: whatever comes of it is nobody's. `attempt`: its `key`.

        Unless it was ours to the end, and only we don't know yet, as the commit landed and its answer did not: whoever
        settles it sees that, and writes the record of it.
        """
        if attempt in self._tasks and attempt not in self._abandoned:
            self._abandoned.add(attempt)
            self._cancel_soon(self._tasks[attempt][1])

    async def stop(self, *, patience_s: float) -> None:
        """Begin nothing more; after `patience_s` seconds hand back what has not ended by itself."""
        self._stopping = True
        self._room.set()
        if self._beginning:  # what is being taken at this moment is ours to end as well
            await asyncio.wait(self._beginning, timeout=max(patience_s, 1))
        tasks = [task for _, task in self._tasks.values()]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=patience_s)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending, timeout=1)

    def _cancel_soon(self, task: asyncio.Task[None]) -> None:
        # Not before its first step: a coroutine that has not begun is ended without a `finally` of its own being heard,
        # and its room would never be free again.
        asyncio.get_running_loop().call_soon(task.cancel)

    async def _take(self, batch: Sequence[Dispatched]) -> list[RunningJob]:
        try:
            return await self._database.retry_write(
                lambda session: take(session, dispatched=batch, worker=self.worker, now=self._clock())
            )
        except Exception as error:
            if not is_unavailable(error) and not is_retryable(error):
                raise
            # Begun or not, they are found again: by the look for what was dispatched and never begun, or by this
            # worker's next look at what it is said to be at.
            log.warning("runs.take_failed", runs=len(batch), error=f"{type(error).__name__}: {error}"[:300])
            return []

    async def _give_back(self, dispatched: Sequence[Dispatched]) -> None:
        with suppress(Exception):  # else they are returned after the time for runs that nobody begins
            async with self._database.write() as session:
                await return_unbegun(session, dispatched=dispatched)

    async def _run(self, run: RunningJob) -> None:
        bind_contextvars(**run.log_context())
        job = JOBS.get(run.job)
        perform = self._performers.get(run.job)
        outcome: Outcome | None
        try:
            if job is None or perform is None:
                outcome = self._unknown(run)
            else:
                outcome = await self._perform(run, job, perform)
        except asyncio.CancelledError:
            outcome = self._stopped(run)
        finally:
            self._tasks.pop(run.key, None)
            self._cancelled.discard(run.key)
            self._abandoned.discard(run.key)
            self._release(1)
        if outcome is None or run.is_settled:
            AT_WORK.discard(run.key)
        else:
            self._settler.put(outcome)

    async def _perform(self, run: RunningJob, job: Job, perform: Perform) -> Outcome | None:
        try:
            async with asyncio.timeout(job.timeout_s) as limit:
                result = check_result(await perform(run))
        except RunTaken:
            log.info("run.taken_meanwhile", **run.log_context())
            run.is_settled = True
            return None
        except JobFailed as failure:
            return self._failed(run, job, failure, result=_fit(failure.result), permanent=failure.permanent)
        except (Exception, SystemExit) as error:  # a job that calls sys.exit() has failed, and the worker goes on
            if isinstance(error, TimeoutError) and limit.expired():
                late = JobFailed(f"did not end within {job.timeout_s:g} s")
                return self._failed(run, job, late, kind="TimedOut")
            if _is_outage(error) and run.seq < MOST_HANDS:
                again_at = self._clock() + timedelta(seconds=AFTER_OUTAGE.delay(max(1, run.seq // 2)))
                log.warning("run.database_away", error=f"{type(error).__name__}: {error}"[:300])
                return Outcome(run, RunState.WAITING, self._clock(), again_at=again_at, counts=False)
            return self._failed(run, job, error)
        return Outcome(run, RunState.SUCCEEDED, self._clock(), result)

    def _failed(
        self,
        run: RunningJob,
        job: Job,
        error: BaseException,
        *,
        kind: str | None = None,
        result: dict[str, Any] | None = None,
        permanent: bool = False,
    ) -> Outcome:
        now = self._clock()
        kept = error_of(error)
        if kind is not None:
            kept["type"] = kind
        if permanent or run.attempt >= run.max_attempts:
            return Outcome(run, RunState.FAILED, now, result, kept)
        again_at = now + timedelta(seconds=job.retry.delay(run.attempt))
        return Outcome(run, RunState.WAITING, now, result, kept, again_at)

    def _stopped(self, run: RunningJob) -> Outcome | None:
        now = self._clock()
        if run.key in self._cancelled:
            return Outcome(run, RunState.CANCELLED, now)
        if run.is_settled:
            return None
        return Outcome(run, self._hands_back_as, now, counts=False)

    def _unknown(self, run: RunningJob) -> Outcome:
        now = self._clock()
        log.warning("run.unknown_job", **run.log_context())
        return Outcome(run, RunState.WAITING, now, again_at=now + UNKNOWN_JOB_AGAIN, counts=False)

    def _release(self, count: int) -> None:
        self._reserved -= count
        if count and not self._room.is_set():
            self._room.set()
        self._freed()


def _fit(result: Any) -> dict[str, Any] | None:
    """What a failed job leaves, if it can be kept: how it failed matters more."""
    try:
        return check_result(result)
    except (TypeError, ValueError):
        return None


def _is_outage(error: BaseException) -> bool:
    """Whether our own database failed it, and not the job itself."""
    if isinstance(error, DBAPIError):
        return is_unavailable(error) or is_retryable(error)
    return isinstance(error, PoolTimeoutError | DatabaseTimeout)
