"""The dispatcher of a worker: heard at once, never more on the way than fits, and never stopped by what goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import update

from jobs.dispatcher import AHEAD, LINGERS_AFTER_S, TICK_S, Dispatcher
from jobs.perform import LONGEST_MESSAGE, message_id, perform, to_message
from models import Run, Schedule
from models.run import RunTrigger
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.dispatch import Dispatched
from scheduler.runs.enqueue import NewRun, enqueue_many
from scheduler.runs.execute import Executor
from scheduler.runs.jobs import DEFAULT_QUEUE, EVERY_SECOND, SCHEDULES_QUEUE
from scheduler.runs.running import RunningJob
from scheduler.schedules.system import TickGate, ensure_system_schedules
from tests.conftest import Stack
from tests.services.engine import (
    JOB,
    FailingDatabase,
    declare,
    executor_of,
    logged,
    put,
    run_row,
    states,
    until,
    until_states,
)
from tests.services.stored import count, rows, set_


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch, declared: None) -> None:
    declare(monkeypatch)


@dataclass
class Scene:
    """A dispatcher, and what it does."""

    database: Database
    executor: Executor
    carried: list[tuple[str, list[Dispatched]]] = field(default_factory=list)
    quarantined: int = 0
    is_away: bool = False
    begun: list[RunningJob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(
            self.database,
            self.executor,
            TickGate(),
            queues=[DEFAULT_QUEUE, SCHEDULES_QUEUE],
            carry=self._carry,
            quarantined=self._see_quarantined,
        )

    async def _carry(self, queue: str, dispatched: list[Dispatched]) -> bool:
        if not self.is_away:
            self.carried.append((queue, dispatched))
        return not self.is_away

    def _see_quarantined(self) -> None:
        self.quarantined += 1

    def ids(self, queue: str | None = None) -> list[Any]:
        """What was carried, in order."""
        return [each.id for name, batch in self.carried for each in batch if queue in (None, name)]


@asynccontextmanager
async def dispatching(database: Database, *, concurrency: int = 10, perform: Any = None) -> AsyncIterator[Scene]:
    """A dispatcher at work, its first tick done."""
    scenes: list[Scene] = []

    async def do(run: RunningJob) -> None:
        scenes[0].begun.append(run)
        if perform is not None:
            await perform(run)

    def freed() -> None:
        if scenes:
            scenes[0].dispatcher.freed()

    async with executor_of(database, do, concurrency=concurrency, freed=freed) as executor:
        scene = Scene(database, executor)
        scenes.append(scene)
        database.wake_workers = scene.dispatcher.wake
        task = asyncio.create_task(scene.dispatcher.run())
        await asyncio.sleep(0.1)
        try:
            yield scene
            assert not task.done()
        finally:
            database.wake_workers = None
            task.cancel()
            await asyncio.wait([task])


async def ask(database: Database, count: int = 1, **fields: Any) -> None:
    new = [NewRun(job=JOB, trigger=RunTrigger.MANUAL, **fields) for _ in range(count)]
    async with database.write() as session:
        await enqueue_many(session, new, now=now())


async def test_it_is_woken_by_whoever_asks_in_this_process(database: Database) -> None:
    async with dispatching(database) as scene:
        took = []
        for number in range(4):
            began = time.monotonic()
            await ask(database)

            async def is_carried(number: int = number) -> bool:
                return len(scene.ids()) == number + 1

            await until(is_carried, seconds=3)
            took.append(time.monotonic() - began)
            await database.retry_write(lambda session: session.execute(update(Run.__table__).values(state="succeeded")))
        assert sorted(took)[1] < TICK_S / 2, took


async def test_without_a_word_it_looks_each_second(database: Database) -> None:
    async with dispatching(database) as scene:
        database.wake_workers = None
        await ask(database, 3)

        async def all_carried() -> bool:
            return len(scene.ids()) == 3

        await until(all_carried, seconds=TICK_S + 2)
    assert await states(database) == {"dispatched": 3}


@pytest.mark.heavy(on="mariadb")
async def test_no_more_on_the_way_than_soon_fits(database: Database) -> None:
    async with dispatching(database, concurrency=10) as scene:
        await ask(database, 100)
        await until_states(database, {"dispatched": 20, "queued": 80})
        scene.dispatcher.wake()
        await asyncio.sleep(TICK_S + 0.3)
        assert len(scene.ids()) == 20
    assert min(10, AHEAD) == 10


async def test_a_large_dispatch_is_shared_in_messages(database: Database) -> None:
    async with dispatching(database, concurrency=400) as scene:
        await ask(database, 600)

        async def all_carried() -> bool:
            return len(scene.ids()) == 600

        await until(all_carried, seconds=5)
        sizes = [len(batch) for _, batch in scene.carried]
        assert max(sizes) == LONGEST_MESSAGE and len(set(scene.ids())) == 600
        names = [message_id(batch) for _, batch in scene.carried]
        assert len(set(names)) == len(names), "a name that was used is a message that is dropped"


async def test_a_message_says_what_it_is_meant_to(database: Database) -> None:
    async with dispatching(database) as scene:
        await ask(database, 3)

        async def all_carried() -> bool:
            return len(scene.ids()) == 3

        await until(all_carried)
        [(_, batch)] = scene.carried
        message = orjson.loads(orjson.dumps(to_message(batch)))
        work = type("Work", (), {"executor": scene.executor})()
        await perform({"work": work}, message)
        await until_states(database, {"succeeded": 3})
        await perform({"work": work}, message)  # once more, as when Redis gives it twice
        assert len(scene.begun) == 3


@pytest.mark.heavy(on="mariadb")
async def test_all_of_a_backlog_comes_through_as_room_is_free(database: Database) -> None:
    """Without waiting for the next second each time that what fitted is done."""
    scenes: list[Scene] = []

    async with dispatching(database, concurrency=10) as scene:
        scenes.append(scene)
        scene.is_away = True
        began = time.monotonic()
        await ask(database, 200)
        await until_states(database, {"succeeded": 200}, seconds=20)
        assert time.monotonic() - began < 8, "20 at a time, and a second for each"
    assert len({run.id for run in scene.begun}) == len(scene.begun) == 200


async def test_while_redis_is_away_it_begins_what_it_dispatched(database: Database) -> None:
    async with dispatching(database) as scene:
        scene.is_away = True
        await ask(database, 30)
        await until_states(database, {"succeeded": 30})
        assert scene.carried == []


async def test_no_queue_starves_behind_another(database: Database) -> None:
    async with dispatching(database, concurrency=2) as scene:
        scene.is_away = True
        await ask(database, 150)
        alone = await put(database, queue=SCHEDULES_QUEUE)

        async def done() -> bool:
            return bool((await run_row(database, alone)).state == "succeeded")

        await until(done, seconds=10)
        others = await count(database, Run, Run.state == "succeeded")
        assert others < 120, "it came when all the others had gone"


async def test_it_sees_to_what_waits_and_what_is_blocked_also_under_load(database: Database) -> None:
    schedule = new_id()
    due = await put(database, state="waiting", available_at=now())
    blocked = await put(database, state="blocked", schedule_id=schedule)
    async with dispatching(database, concurrency=1):
        await ask(database, 30)

        async def both_free() -> bool:
            return {(await run_row(database, each)).state for each in (due, blocked)} <= {"queued", "dispatched"}

        await until(both_free, seconds=4)


async def test_it_tells_of_quarantined_runs(database: Database) -> None:
    async with dispatching(database) as scene:
        assert scene.quarantined == 0
        run_id = await put(database, state="quarantined")

        async def told() -> bool:
            return scene.quarantined > 0

        await until(told, seconds=3)
        await set_(database, Run, run_id, state="succeeded")


async def test_it_fires_the_schedules_that_are_due(database: Database) -> None:
    async with database.write() as session:
        await ensure_system_schedules(session, now=now())
        await session.execute(
            update(Schedule.__table__)
            .where(Schedule.system_job == "cleanup")
            .values(cron=EVERY_SECOND, next_run_at=now().replace(microsecond=0) + timedelta(seconds=1))
        )
    async with dispatching(database):

        async def fired() -> bool:
            return {row.trigger for row in await rows(database, Run, Run.job == "cleanup")} == {"cron"}

        await until(fired, seconds=4)


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("fault", ["refused", "landed"])
async def test_a_fault_at_its_commit_costs_some_seconds_and_no_run(
    stack: Stack, database: Database, fault: str
) -> None:
    """What landed unseen is on its way, and nobody was told: it is found by who sent it."""
    failing = FailingDatabase(stack.database_url)
    with logged() as lines:
        async with dispatching(failing) as scene:
            scene.is_away = fault == "refused"
            setattr(failing, fault, 1)
            await ask(database)
            scene.dispatcher.wake()
            began = time.monotonic()
            await until_states(database, {"succeeded": 1}, seconds=LINGERS_AFTER_S + 6)
            assert fault == "refused" or time.monotonic() - began > LINGERS_AFTER_S - 1
        assert failing.failures == 1 and lines.events("dispatch.failed")
    assert len(scene.begun) == 1
    await failing.dispose()
