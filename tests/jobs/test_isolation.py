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
from models import Run, Worker
from scheduler.database import Database
from scheduler.runs.control import cancel
from scheduler.settings import Settings
from tests.factories import NOW
from tests.jobs import program
from tests.jobs.conftest import Processes, ask, working
from tests.services.engine import attempts, logged, put, run_row, states, until
from tests.services.stored import count, rows

pytestmark = [pytest.mark.faults, pytest.mark.slow]

CAUSES = {
    "be_killed": ("ended by SIGKILL (often: out of memory)", None),
    "abort": ("ended by SIGABRT", "in abort"),
    "crash": ("ended by SIGSEGV", "in crash"),
    "leave": ("ended with status 0", None),
    "exit_beside": ("ended with status 7", None),
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
    [("sqlite", ["abort", "crash", "exit_beside"]), ("mariadb", ["be_killed", "leave", "hang"])],
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
    poison = await ask(database, "be_killed", seconds=0.5)
    innocent = [await ask(database, "insert_person", seconds=1) for _ in range(4)]
    innocent += [await ask(database, "nothing") for _ in range(20)]
    victim = processes.start()
    assert await asyncio.to_thread(victim.wait, 20) == -9
    died_at = time.monotonic()
    survivor = processes.start()

    async def noticed() -> bool:
        return (await run_row(database, poison)).state != "running"

    await until(noticed, seconds=30)
    assert time.monotonic() - died_at < 15 + 3  # the survivor's own start included
    others = [await ask(database, "nothing") for _ in range(5)]  # others go on meanwhile
    await until_over(database, seconds=45)
    row = await run_row(database, poison)
    assert (row.state, row.attempt, row.error["type"]) == ("failed", 3, "ProcessDied")
    assert await attempts(database, poison) == [(1, "lost"), (2, "failed")]
    found = {row.id: row for row in await rows(database, Run)}
    assert {found[run_id].state for run_id in innocent + others} == {"succeeded"}
    assert await count_of_people(database) == 4
    assert survivor.poll() is None, "it kills no second one"
    survivor.terminate()
    assert await asyncio.to_thread(survivor.wait, 12) == 0
    ends = processes.ends()
    assert all(len(events) == 1 for events in ends.values())
    assert ends[str(poison)] == ["run.failed"]


async def count_of_people(database: Database) -> int:
    from models import User

    return await count(database, User)


async def test_a_quarantined_run_that_is_cancelled_in_its_child(settings: Settings, database: Database) -> None:
    run_id = await put(database, job="sleep", state="quarantined", attempt=1, max_attempts=3, arguments={"seconds": 40})
    async with working(settings):

        async def begun() -> bool:
            return (await run_row(database, run_id)).state == "running"

        await until(begun, seconds=15)
        async with database.write() as session:
            await cancel(session, run_id=run_id, now=NOW)

        async def cancelled() -> bool:
            return (await run_row(database, run_id)).state == "cancelled"

        await until(cancelled, seconds=3)


async def test_a_worker_that_stops_takes_its_child_with_it(settings: Settings, database: Database) -> None:
    run_id = await put(database, job="sleep", state="quarantined", attempt=1, max_attempts=3, arguments={"seconds": 40})
    async with working(settings):

        async def begun() -> bool:
            return (await run_row(database, run_id)).state == "running"

        await until(begun, seconds=15)
        began_to_stop = time.monotonic()
    assert time.monotonic() - began_to_stop < 5
    row = await run_row(database, run_id)
    # Handed back, and not counted: it was not its fault.
    assert (row.state, row.attempt) in (("queued", 1), ("quarantined", 1))
    assert await count(database, Worker) == 0
