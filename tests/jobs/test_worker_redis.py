"""Redis only carries: flushed, restarted or away, runs are begun and end all the same, soon, and once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from models import Run, User
from scheduler.database import Database
from scheduler.settings import Settings
from tests.conftest import Stack
from tests.jobs.conftest import ask, working
from tests.jobs.test_worker_runs import until_job_states
from tests.services.engine import logged, states, until
from tests.services.stored import count, rows

pytestmark = [pytest.mark.heavy(on="mariadb"), pytest.mark.faults]


async def lateness(database: Database) -> list[float]:
    """Seconds from asked for to begun, of each run."""
    found = await rows(database, Run, Run.job == "insert_person")
    return sorted((row.started_at - row.queued_at).total_seconds() for row in found)


async def once_each(database: Database, expected: int) -> None:
    assert await count(database, User) == expected
    assert {row.attempt for row in await rows(database, Run, Run.job == "insert_person")} == {1}


@pytest.mark.parametrize("how", ["away", "none"])
async def test_without_redis_from_the_start(stack: Stack, settings: Settings, database: Database, how: str) -> None:
    changes: dict[str, Any] = {}
    if how == "none":
        changes["redis_url"] = None
    else:
        await asyncio.to_thread(stack.redis.kill)
    async with working(settings, **changes):
        for _ in range(30):
            await ask(database, "insert_person")
        await until_job_states(database, {"succeeded": 30})
    await once_each(database, 30)
    assert max(await lateness(database)) < 3


async def test_redis_comes_when_the_worker_is_there_already(
    stack: Stack, settings: Settings, database: Database
) -> None:
    await asyncio.to_thread(stack.redis.kill)
    with logged() as lines:
        async with working(settings):
            await ask(database, "insert_person")
            await until_job_states(database, {"succeeded": 1})
            await asyncio.to_thread(stack.redis.start)

            async def connected() -> bool:
                return len(lines.events("worker.queue_connected")) >= 3

            await until(connected)
            began = time.monotonic()
            await ask(database, "insert_person", redis_url=stack.redis_url)
            await until_job_states(database, {"succeeded": 2})
            assert time.monotonic() - began < 3
    await once_each(database, 2)


async def test_flushed_again_and_again_while_runs_are_on_their_way(
    stack: Stack, settings: Settings, database: Database
) -> None:
    """Word of a run is lost between its dispatch and its beginning: it is missed, and begun, within seconds."""
    over = asyncio.Event()

    async def flush() -> None:
        while not over.is_set():
            await asyncio.to_thread(stack.redis.flushall)
            await asyncio.sleep(0)

    async with working(settings, worker_concurrency=20):
        flushing = asyncio.create_task(flush())
        for _ in range(60):
            await ask(database, "insert_person", redis_url=stack.redis_url)
        over.set()
        await flushing
        await until_job_states(database, {"succeeded": 60}, seconds=25)
    await once_each(database, 60)
    late = await lateness(database)
    assert max(late) < 12, late[-5:]


async def test_word_that_is_lost_does_not_stop_those_behind_it(
    stack: Stack, settings: Settings, database: Database
) -> None:
    """As many as may be on their way are lost at once; there is room again soon, not after half a minute."""
    async with working(settings, worker_concurrency=2):
        await ask(database, "insert_person")
        await until_job_states(database, {"succeeded": 1})
        # What is sent meanwhile is lost: Redis takes it after the pause at the earliest, and forgets it.
        await asyncio.to_thread(stack.redis.pause)
        for _ in range(6):
            await ask(database, "insert_person")
        await asyncio.sleep(1.5)
        await asyncio.to_thread(stack.redis.resume)
        await asyncio.to_thread(stack.redis.flushall)
        for _ in range(6):
            await ask(database, "insert_person")
        await until_job_states(database, {"succeeded": 13}, seconds=20)
    await once_each(database, 13)


async def test_restarted_in_the_middle_what_is_under_way_goes_on(
    stack: Stack, settings: Settings, database: Database
) -> None:
    async with working(settings, worker_concurrency=10):
        for _ in range(30):
            await ask(database, "insert_person", seconds=0.5)

        async def begun() -> bool:
            return (await states(database)).get("running", 0) == 10

        await until(begun)
        await asyncio.to_thread(stack.redis.kill)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(stack.redis.start)
        await until_job_states(database, {"succeeded": 30}, seconds=25)
    await once_each(database, 30)


async def test_redis_that_hangs(stack: Stack, settings: Settings, database: Database) -> None:
    """There, and does not answer: nothing waits for it for long."""
    async with working(settings):
        await ask(database, "insert_person")
        await until_job_states(database, {"succeeded": 1})
        stack.redis.pause()
        try:
            for _ in range(10):
                await ask(database, "insert_person")
            await until_job_states(database, {"succeeded": 11}, seconds=15)
        finally:
            stack.redis.resume()
    await once_each(database, 11)
    assert max(await lateness(database)) < 6
