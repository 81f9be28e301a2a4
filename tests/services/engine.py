"""What the tests of the engine share: runs asked for and begun, jobs of their own, and a database that fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, RunAttempt
from models.run import RunState, RunTrigger
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.backoff import Backoff
from scheduler.runs.dispatch import Dispatch, Dispatched, dispatch
from scheduler.runs.enqueue import NewRun, enqueue_many
from scheduler.runs.execute import Executor, Perform
from scheduler.runs.jobs import DEFAULT_QUEUE, JOBS, Job
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Settler
from scheduler.runs.take import take
from tests.factories import NOW
from tests.rules.process_logging import process_logging
from tests.services.stored import one, rows

JOB = "test_job"
"""Declared by the fixture `job`: three attempts, in the queue `default`."""


def declare(monkeypatch: pytest.MonkeyPatch, name: str = JOB, **fields: Any) -> Job:
    """A job of the tests' own, for as long as the test runs."""
    defaults: dict[str, Any] = {"timeout_s": 30, "attempts": 3, "retry": Backoff(base_s=10, cap_s=60, least_s=5)}
    declared = Job(name=name, description="A test's.", **(defaults | fields))
    monkeypatch.setitem(JOBS, name, declared)
    return declared


# -- runs ----------------------------------------------------------------------------------------------------


async def ask_for(database: Database, count: int = 1, *, now: datetime = NOW, **fields: Any) -> list[UUID]:
    """So many new runs of `JOB`, in the order of their ids."""
    new = [NewRun(**{"job": JOB, "trigger": RunTrigger.MANUAL} | fields) for _ in range(count)]
    async with database.write() as session:
        assert await enqueue_many(session, new, now=now) == count
    return [each.id for each in new]


async def put(database: Database, *, at: datetime = NOW, **columns: Any) -> UUID:
    """A run as it might stand in the database, past the services. Returns its id."""
    row = {
        "id": new_id(),
        "job": JOB,
        "trigger": "manual",
        "state": "queued",
        "queue": DEFAULT_QUEUE,
        "priority": 1,
        "attempt": 0,
        "max_attempts": 3,
        "seq": 0,
        "queued_at": at,
        "progress_done": 0,
        "progress_total": 0,
    } | columns
    async with database.write() as session:
        await session.execute(insert(Run.__table__), [row])
    return UUID(str(row["id"]))


async def put_running(database: Database, *, worker: str = "w", **columns: Any) -> RunningJob:
    """A run that `worker` has begun, past the services."""
    begun: dict[str, Any] = {"state": "running", "attempt": 1, "seq": 1, "worker": worker, "started_at": NOW}
    return running(await one(database, Run, Run.id == await put(database, **(begun | columns))))


def running(row: Row[Any]) -> RunningJob:
    """A run's row as whoever performs it has it."""
    return RunningJob(
        id=row.id,
        job=row.job,
        trigger=row.trigger,
        attempt=row.attempt,
        started_at=row.started_at,
        worker=row.worker,
        seq=row.seq,
        max_attempts=row.max_attempts,
        owner_id=row.owner_id,
        request_id=row.request_id,
    )


async def dispatch_from(
    database: Database, *, room: int = 100, worker: str = "w", queue: str = DEFAULT_QUEUE
) -> Dispatch:
    """One dispatch, committed."""
    return await database.retry_write(lambda session: dispatch(session, queue=queue, worker=worker, room=room))


async def take_all(
    database: Database, dispatched: Sequence[Dispatched], *, worker: str = "w", now: datetime = NOW
) -> list[RunningJob]:
    """Begin them, committed."""
    return await database.retry_write(lambda session: take(session, dispatched=dispatched, worker=worker, now=now))


async def begin(database: Database, count: int = 1, *, worker: str = "w", **fields: Any) -> list[RunningJob]:
    """So many runs asked for, dispatched and begun, in the order of their ids."""
    ids = await ask_for(database, count, **fields)
    dispatched = await dispatch_from(database, room=count, worker=worker, queue=JOBS[fields.get("job", JOB)].queue)
    begun = await take_all(database, dispatched.runs, worker=worker)
    assert sorted(run.id for run in begun) == ids
    return sorted(begun, key=lambda run: run.id)


async def run_row(database: Database, run_id: UUID) -> Row[Any]:
    """A run as it stands."""
    return await one(database, Run, Run.id == run_id)


async def states(database: Database) -> dict[str, int]:
    """How many runs are in which state."""
    found: dict[str, int] = {}
    for row in await rows(database, Run):
        found[row.state] = found.get(row.state, 0) + 1
    return found


async def attempts(database: Database, run_id: UUID) -> list[tuple[int, str]]:
    """Numbers and ends of a run's attempts, as they are on record."""
    return [(row.number, row.state) for row in await rows(database, RunAttempt, RunAttempt.run_id == run_id)]


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float = 10.0, what: str = "it") -> Any:
    """Wait until `condition` gives something true, and return that; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        if found := await condition():
            return found
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} s")
        await asyncio.sleep(0.02)


async def until_states(database: Database, expected: dict[str, int], *, seconds: float = 10.0) -> None:
    """Wait until so many runs are in these states, and none in any other."""
    end = time.monotonic() + seconds
    while (found := await states(database)) != expected:
        if time.monotonic() > end:
            pytest.fail(f"not {expected} within {seconds} s, but {found}")
        await asyncio.sleep(0.02)


# -- performing ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def executor_of(
    database: Database,
    perform: Perform,
    *,
    worker: str = "w",
    concurrency: int = 10,
    settler_database: Database | None = None,
    **options: Any,
) -> AsyncIterator[Executor]:
    """An executor whose settler is at work. At the end what still runs has 5 s to end."""
    settler = Settler(settler_database or database)
    executor = Executor(
        database,
        settler,
        worker=worker,
        performers={JOB: perform},
        concurrency=concurrency,
        **options,
    )
    at_work = asyncio.create_task(settler.run())
    try:
        yield executor
        await executor.stop(patience_s=5)
        async with asyncio.timeout(10):
            await settler.drained()
    finally:
        await executor.stop(patience_s=0)
        at_work.cancel()
        await asyncio.wait([at_work])


# -- logs ----------------------------------------------------------------------------------------------------


class Lines:
    """The log lines since the beginning of a `logged()` block."""

    def __init__(self, stream: StringIO) -> None:
        self._stream = stream

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def ends(self, run_id: UUID | None = None) -> list[dict[str, Any]]:
        """The records that end runs, or one run."""
        final = {f"run.{state}" for state in ("succeeded", "failed", "cancelled", "lost", "skipped")}
        return [
            line for line in self.all() if line["event"] in final and (run_id is None or line["run_id"] == str(run_id))
        ]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.all() if line["event"] == name]


@contextmanager
def logged() -> Iterator[Lines]:
    """The log as a process of the service writes it."""
    with process_logging() as stream:
        yield Lines(stream)


# -- a database that fails -----------------------------------------------------------------------------------


def cut() -> OperationalError:
    """What a caller sees whose connection was cut."""
    error = OperationalError("COMMIT", {}, Exception(2013, "Lost connection to MySQL server during query"))
    error.connection_invalidated = True
    return error


class FailingDatabase(Database):
    """A database whose next writes fail: `refused` of them before their commit; then `landed`, whose commit is done
    though the caller sees a failure."""

    refused = 0
    landed = 0
    failures = 0

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        async with super().write() as session:
            yield session
            if self.refused:
                self.refused -= 1
                self.failures += 1
                raise cut()

    def _committed(self, session: AsyncSession) -> None:
        # Between the commit and whatever follows from it, as where the server's answer is lost.
        if self.landed and not session.info.get("read"):
            self.landed -= 1
            self.failures += 1
            raise cut()
        super()._committed(session)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with super().read() as session:
            session.info["read"] = True
            yield session


async def count_of(database: Database, query: Any) -> int:
    """The one number that a query gives."""
    async with database.read() as session:
        return int((await session.execute(query)).scalar_one())


async def ids_in(database: Database, state: RunState) -> list[UUID]:
    """The runs in a state."""
    async with database.read() as session:
        return list((await session.execute(select(Run.id).where(Run.state == state.value))).scalars())
