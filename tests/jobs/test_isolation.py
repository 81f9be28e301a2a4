"""Poison: a run that ends the process it is in ends alone, says what of, and takes nothing with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from jobs.isolation import Isolation
from models import Run, User, Worker
from scheduler.database import Database
from scheduler.runs.control import cancel
from scheduler.settings import Settings
from tests.factories import NOW
from tests.jobs import program
from tests.jobs.conftest import Processes, ask, working
from tests.services.engine import attempts, logged, put, run_row, states, until
from tests.services.stored import count, rows

pytestmark = [pytest.mark.heavy(on="sqlite"), pytest.mark.faults, pytest.mark.slow]

CAUSES = {
    "be_killed": ("ended by SIGKILL (often: out of memory)", None),
    "crash": ("ended by SIGSEGV", "in crash"),
    "leave": ("ended with status 0", None),
    "hang": ("it was stuck", "in hang"),
}


@asynccontextmanager
async def isolating(database: Database, command: Any = program.command) -> AsyncIterator[Isolation]:
    isolation = Isolation(database, worker="parent", command=command)
    task = asyncio.create_task(isolation.run())
    try:
        yield isolation
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(isolation.stopped(), 10)


async def until_over(database: Database, *, seconds: float) -> None:
    async def over() -> bool:
        return (await states(database)).keys() <= {"succeeded", "failed", "cancelled"}

    await until(over, seconds=seconds, what=f"{await states(database)}: all over")


@pytest.mark.parametrize(
    ("stack", "poisons"),
    [("sqlite", ["crash", "leave"]), ("mariadb", ["be_killed", "hang"])],
    indirect=["stack"],
)
async def test_each_poison_dies_alone_and_says_of_what(
    settings: Settings, database: Database, poisons: list[str]
) -> None:
    """Of its last attempt here; between them and after them, an innocent run succeeds."""
    made: dict[str, UUID] = {}
    innocent: list[UUID] = []
    for poison in poisons:
        made[poison] = await put(database, job=poison, state="quarantined", attempt=1, max_attempts=2, arguments={})
        innocent.append(await put(database, job="nothing", state="quarantined", attempt=1, arguments={}))
    with logged() as lines:
        async with isolating(database) as isolation:
            isolation.wake()

            async def wake_and_look() -> bool:
                isolation.wake()  # as each look of the dispatcher does
                return (await states(database)).keys() <= {"succeeded", "failed"}

            await until(wake_and_look, seconds=50)
        for poison, run_id in made.items():
            row = await run_row(database, run_id)
            message, traceback = CAUSES[poison]
            assert (row.state, row.attempt, row.error["type"]) == ("failed", 2, "ProcessDied")
            assert message in row.error["message"]
            assert traceback is None or traceback in row.error["traceback"]
            assert [line["event"] for line in lines.ends(run_id)] == ["run.failed"]
    for run_id in innocent:
        row = await run_row(database, run_id)
        assert (row.state, row.attempt) == ("succeeded", 2)
    assert await count(database, Worker) == 0, "no child is left on record"


async def test_a_poison_kills_one_worker_and_innocents_in_flight_with_it_succeed(
    processes: Processes, settings: Settings, database: Database
) -> None:
    poison = await put(database, job="be_killed", arguments={"seconds": 0.5}, max_attempts=2)
    innocent = [await ask(database, "insert_person", seconds=1) for _ in range(3)]
    innocent += [await ask(database, "nothing") for _ in range(10)]
    victim = processes.start()
    assert await asyncio.to_thread(victim.wait, 20) == -9
    assert (await run_row(database, poison)).state == "running"
    others: list[UUID] = []
    with logged() as lines:
        async with working(settings):
            began = time.monotonic()

            async def noticed() -> bool:
                if len(others) < 5:  # others go on meanwhile
                    others.append(await ask(database, "nothing"))
                return bool((await run_row(database, poison)).state != "running")

            await until(noticed, seconds=20)
            assert time.monotonic() - began < 15
            await until_over(database, seconds=40)
        [end] = lines.ends(poison)
        assert end["event"] == "run.failed"
    row = await run_row(database, poison)
    assert (row.state, row.attempt, row.error["type"]) == ("failed", 2, "ProcessDied")
    assert await attempts(database, poison) == [(1, "lost")]
    found = {row.id: row for row in await rows(database, Run)}
    assert {found[run_id].state for run_id in innocent + others} == {"succeeded"}
    assert await count(database, User) == 3
    assert all(len(events) == 1 for events in processes.ends().values())


async def test_a_quarantined_run_is_cancelled_or_handed_back_like_any_other(
    settings: Settings, database: Database
) -> None:
    """It is in a process of its own: a cancel reaches it there, and a worker that stops takes its child with it."""
    columns: dict[str, Any] = {"job": "sleep", "state": "quarantined", "attempt": 1, "arguments": {"seconds": 40}}
    first, second = await put(database, **columns), await put(database, **columns)

    async def is_running(run_id: UUID) -> bool:
        return bool((await run_row(database, run_id)).state == "running")

    async with working(settings):
        await until(lambda: is_running(first), seconds=20)
        async with database.write() as session:
            await cancel(session, run_id=first, now=NOW)
        await until(lambda: is_running(second), seconds=5)
        assert (await run_row(database, first)).state == "cancelled"
        began_to_stop = time.monotonic()
    assert time.monotonic() - began_to_stop < 5
    row = await run_row(database, second)
    # Not counted: it was not its fault. And still to be tried alone: it may be what kills.
    assert row.state == "quarantined" and row.attempt == 1
    assert await count(database, Worker) == 0
