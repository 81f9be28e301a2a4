"""A whole worker: what is asked for is begun at once, ended once, cancelled, and handed back when the worker stops."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import update

from models import Run, User, Worker
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.control import cancel
from scheduler.runs.jobs import SCHEDULES_QUEUE
from scheduler.settings import Settings
from tests.conftest import Stack
from tests.jobs import program
from tests.jobs.conftest import Processes, ask, working
from tests.processes import spawn
from tests.services.engine import attempts, logged, put, run_row, states, until
from tests.services.stored import count, one, rows

pytestmark = pytest.mark.heavy(on="mariadb")


async def until_job_states(database: Database, expected: dict[str, int], *, seconds: float = 15) -> None:
    """As `until_states`, without what the worker's ticks leave."""

    async def as_expected() -> bool:
        found: dict[str, int] = {}
        for row in await rows(database, Run, Run.job.not_in(["reap", "send_reminders", "send_emails", "cleanup"])):
            found[row.state] = found.get(row.state, 0) + 1
        return found == expected

    await until(as_expected, seconds=seconds, what=f"{expected}, not {await states(database)}")


async def test_what_is_asked_for_starts_at_once(stack: Stack, settings: Settings, database: Database) -> None:
    """Not at the next second: whoever asks says a word through Redis."""
    async with working(settings):
        await ask(database, "nothing")
        await until_job_states(database, {"succeeded": 1})
        for _ in range(15):
            await ask(database, "nothing", redis_url=stack.redis_url)
            await asyncio.sleep(0.1)
        await until_job_states(database, {"succeeded": 16})
    late = [(row.started_at - row.queued_at).total_seconds() for row in await rows(database, Run, Run.job == "nothing")]
    assert statistics.median(late) < 0.25, sorted(late)
    assert max(late) < 2, sorted(late)


async def test_every_run_ends_once_with_one_record(settings: Settings, database: Database) -> None:
    with logged() as lines:
        async with working(settings):
            failing = [await ask(database, "fail") for _ in range(3)]
            for _ in range(30):
                await ask(database, "nothing")
                await ask(database, "insert_person")
            await until_job_states(database, {"succeeded": 60, "failed": 3}, seconds=25)
        ends = [line for line in lines.ends() if line["job"] in ("nothing", "insert_person", "fail")]
        assert len(ends) == len({line["run_id"] for line in ends}) == 63
        for line in ends:
            assert line.keys() >= {"run_id", "job", "attempt", "trigger", "duration_ms"}
    assert await count(database, User) == 30
    for run_id in failing:
        assert await attempts(database, run_id) == [(1, "failed"), (2, "failed")]


async def test_a_running_job_is_cancelled_within_two_seconds_and_tells_how_far_it_came(
    settings: Settings, database: Database
) -> None:
    async with working(settings):
        run_id = await ask(database, "sleep", seconds=30)

        async def has_progress() -> bool:
            return int((await run_row(database, run_id)).progress_done) > 0

        await until(has_progress, seconds=4.5, what="progress, stored within two seconds")
        other = await ask(database, "sleep", seconds=0.5)
        asked_at = time.monotonic()
        async with database.write() as session:
            await cancel(session, run_id=run_id, now=now())

        async def is_cancelled() -> bool:
            return bool((await run_row(database, run_id)).state == "cancelled")

        await until(is_cancelled, seconds=5)
        assert time.monotonic() - asked_at < 2
        await until_job_states(database, {"cancelled": 1, "succeeded": 1})
        row = await run_row(database, other)
        assert (row.progress_done, row.progress_total) == (5, 5)


async def test_it_takes_from_its_queues_only(settings: Settings, database: Database) -> None:
    mine = await put(database, job="nothing", queue=SCHEDULES_QUEUE)
    not_mine = await put(database, job="nothing")
    async with working(settings, worker_queues=(SCHEDULES_QUEUE,)):

        async def done() -> bool:
            return bool((await run_row(database, mine)).state == "succeeded")

        await until(done)
        assert (await one(database, Worker)).queues == [SCHEDULES_QUEUE]
        await asyncio.sleep(1.2)
    assert (await run_row(database, not_mine)).state == "queued"


async def test_a_retry_comes_when_its_time_has_come(settings: Settings, database: Database) -> None:
    run_id = await put(database, job="nothing", state="waiting", attempt=1, available_at=now() + timedelta(seconds=0.7))
    async with working(settings):
        await until_job_states(database, {"succeeded": 1}, seconds=8)
    row = await run_row(database, run_id)
    assert row.attempt == 2 and row.started_at >= row.queued_at


async def test_runs_of_one_schedule_go_one_after_the_other_without_a_pause_of_a_second(
    settings: Settings, database: Database
) -> None:
    """What a backfill leaves: the next is let go when the one before it has ended."""
    schedule = new_id()
    order = [
        await put(
            database,
            job="nothing",
            state="blocked" if number else "queued",
            schedule_id=schedule,
            scheduled_for=now() + timedelta(seconds=number),
        )
        for number in range(12)
    ]
    async with working(settings):
        began = time.monotonic()
        await until_job_states(database, {"succeeded": 12}, seconds=20)
        assert time.monotonic() - began < 9, "a second each"
    found = {row.id: row for row in await rows(database, Run)}
    times = [(found[run_id].started_at, found[run_id].finished_at) for run_id in order]
    for (_, ended), (started, _) in pairwise(times):
        assert ended <= started


# -- stopping ------------------------------------------------------------------------------------------------


async def test_told_to_stop_it_finishes_or_hands_back_what_it_holds_uncounted(
    settings: Settings, database: Database
) -> None:
    """More than it can hold at once: under way, waiting for room, and on the way."""
    async with working(settings, worker_concurrency=4, grace_seconds=5) as stop:
        short = [await ask(database, "sleep", seconds=1) for _ in range(2)]

        async def begun() -> bool:
            return (await states(database)).get("running", 0) >= 2

        await until(begun)
        for _ in range(12):
            await ask(database, "sleep", seconds=60)

        async def full() -> bool:
            found = await states(database)
            return found.get("running", 0) == 4 and found.get("dispatched", 0) >= 2

        await until(full)
        stop.set()
        began = time.monotonic()
    assert time.monotonic() - began < 5.5
    assert {(await run_row(database, run_id)).state for run_id in short} == {"succeeded"}
    await until_job_states(database, {"succeeded": 2, "queued": 12}, seconds=0.1)
    assert {row.attempt for row in await rows(database, Run, Run.state == "queued")} == {0}
    assert await count(database, Worker) == 0


@pytest.mark.faults
@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)  # it is about the process alone
async def test_a_worker_that_can_not_go_on_ends_instead_of_pretending(
    processes: Processes, settings: Settings, database: Database
) -> None:
    """Its output is gone, and with it a part of it: it must not beat on, and never end a run."""
    reading, writing = os.pipe()
    worker = spawn(
        [sys.executable, "-m", "tests.jobs.program"],
        cwd=program.ROOT,
        env=processes.stack.environment(grace_seconds=3),
        stdout=writing,
        stderr=writing,
    )
    processes.started.append(worker)
    os.close(writing)

    async def is_there() -> bool:
        return await count(database, Worker) == 1

    await until(is_there, seconds=20)
    os.close(reading)
    run_id = await ask(database, "nothing")

    async def ended_or_gone() -> bool:
        return worker.poll() is not None or (await run_row(database, run_id)).state == "succeeded"

    await until(ended_or_gone, seconds=15, what="the run has ended, or the worker")
    # Whichever it is: it is not both alive and useless.
    if worker.poll() is None:
        await ask(database, "nothing")
        await until_job_states(database, {"succeeded": 2})


# -- the database away ---------------------------------------------------------------------------------------


@pytest.mark.faults
async def test_a_database_that_goes_away_costs_no_attempt_and_no_worker(
    stack: Stack, settings: Settings, database: Database
) -> None:
    async with working(settings):
        effects = [await ask(database, "insert_person", seconds=0.02 * number) for number in range(40)]

        async def some_are_done() -> bool:
            return (await states(database)).get("succeeded", 0) >= 5

        await until(some_are_done)
        if stack.mariadb is not None:
            await asyncio.to_thread(stack.mariadb.kill)
            await asyncio.sleep(1)
            await asyncio.to_thread(stack.mariadb.start)
        else:
            async with database.write() as session:  # nobody else can write for so long
                await session.execute(update(Run).where(Run.id == effects[-1]).values(request_id="x"))
                await asyncio.sleep(2)
        await until_job_states(database, {"succeeded": 40}, seconds=40)
    assert await count(database, User) == 40
    assert {(await run_row(database, run_id)).attempt for run_id in effects} == {1}


async def test_two_workers_share_and_do_nothing_twice(settings: Settings, database: Database) -> None:
    async with working(settings, worker_concurrency=5), working(settings, worker_concurrency=5):
        for _ in range(30):
            await ask(database, "insert_person", seconds=0.25)
        await until_job_states(database, {"succeeded": 30}, seconds=25)
    assert await count(database, User) == 30
    found = await rows(database, Run, Run.job == "insert_person")
    assert {row.attempt for row in found} == {1}
    assert len({row.worker for row in found}) == 2
