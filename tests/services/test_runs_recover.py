"""Recovering: the dead are known by their silence, what they were at is tried again, and the living are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from models import Run, RunAttempt, Worker
from models.run import RunState
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs import ledger
from scheduler.runs.control import cancel
from scheduler.runs.dispatch import Dispatched
from scheduler.runs.heartbeat import Heartbeat, Identity
from scheduler.runs.jobs import JobName
from scheduler.runs.reap import Reaper
from scheduler.runs.recover import DEAD_AFTER_S, LONGEST_GAP_S, UNBEGUN_AFTER_S, Sighting, bury
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Outcome, Settler, settle
from tests.factories import NOW
from tests.services.engine import (
    ask_for,
    attempts,
    begin,
    declare,
    dispatch_from,
    logged,
    put_running,
    run_row,
    states,
    take_all,
)
from tests.services.stored import count, one, rows, set_

ERROR = {"type": "ProcessDied", "message": "ended by SIGSEGV", "traceback": "Fatal Python error"}


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


@dataclass
class World:
    """Workers that beat or are silent, and a reaper, by a clock that the test moves."""

    database: Database
    seconds: float = 5000.0
    now: datetime = NOW
    hearts: dict[str, Heartbeat] = field(default_factory=dict)
    reaped: list[dict[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reaper = self.new_reaper()

    def new_reaper(self, worker: str = "reaper") -> Reaper:
        return Reaper(self.database, worker=worker, seconds=lambda: self.seconds)

    async def beat(self, *names: str) -> None:
        for name in names:
            if name not in self.hearts:
                identity = Identity(name=name, version="1", queues=["default"], concurrency=1, started_at=NOW)
                self.hearts[name] = Heartbeat(identity, seconds=lambda: self.seconds)
            async with self.database.write() as session:
                await self.hearts[name].beat(session, running=[], now=self.now)

    async def look(self) -> None:
        if (counts := await self.reaper.reap(now=self.now)) is not None:
            self.reaped.append(counts)

    async def pass_(self, seconds: float, *, alive: Iterable[str] = (), step: float = 1.0) -> None:
        """Time goes by: each second the living beat and the reaper looks."""
        end = self.seconds + seconds
        while self.seconds + step <= end:
            self.seconds += step
            self.now += timedelta(seconds=step)
            await self.beat(*alive)
            await self.look()

    async def unfinished(self) -> dict[str, int]:
        """Of the runs that are not the reaper's own."""
        found: dict[str, int] = {}
        for row in await rows(self.database, Run, Run.job == "test_job"):
            found[row.state] = found.get(row.state, 0) + 1
        return found


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


# -- who is dead ---------------------------------------------------------------------------------------------


@pytest.mark.heavy(on="mariadb")
async def test_a_dead_worker_is_noticed_within_15_seconds_and_the_living_never(
    world: World, database: Database
) -> None:
    [dead_ones] = await begin(database, worker="dead")
    [living_ones] = await begin(database, worker="living")
    await world.beat("dead", "living")
    await world.look()
    await world.pass_(DEAD_AFTER_S - 1, alive=["living"])
    assert await world.unfinished() == {"running": 2}
    await world.pass_(15 - (DEAD_AFTER_S - 1), alive=["living"])
    assert (await run_row(database, dead_ones.id)).state == "quarantined"
    assert (await run_row(database, living_ones.id)).state == "running"
    assert [row.name for row in await rows(database, Worker)] == ["living"]
    assert [counts["runs"] for counts in world.reaped] == [1]
    await world.pass_(30, alive=["living"])
    assert (await run_row(database, living_ones.id)).state == "running"


async def test_a_worker_that_died_before_its_first_beat_is_noticed_too(world: World, database: Database) -> None:
    await begin(database, 3, worker="never seen")
    await world.look()
    await world.pass_(15)
    assert await world.unfinished() == {"quarantined": 3}


async def test_a_slow_worker_lives(world: World, database: Database) -> None:
    [run] = await begin(database, worker="slow")
    await world.beat("slow")
    await world.look()
    for _ in range(5):
        await world.pass_(DEAD_AFTER_S - 1)
        await world.beat("slow")
    assert (await run_row(database, run.id)).state == "running"


async def test_a_gap_between_two_looks_proves_nothing(world: World, database: Database) -> None:
    """The reaper's machine was suspended, or its database away: the others beat meanwhile, for all that it knows."""
    [run] = await begin(database, worker="w")
    await world.beat("w")
    await world.look()
    for _ in range(3):
        world.seconds += LONGEST_GAP_S + 100
        await world.look()
        assert (await run_row(database, run.id)).state == "running"
    await world.pass_(15)
    assert (await run_row(database, run.id)).state == "quarantined"


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)])
async def test_a_wall_clock_that_jumps_changes_nothing(world: World, database: Database, jump: timedelta) -> None:
    [run] = await begin(database, worker="w")
    await world.beat("w")
    await world.look()
    world.now += jump
    await world.pass_(DEAD_AFTER_S - 1)
    assert (await run_row(database, run.id)).state == "running"
    await world.pass_(20, alive=["w"])
    assert (await run_row(database, run.id)).state == "running"
    world.now -= 2 * jump
    await world.pass_(15)
    row = await run_row(database, run.id)
    assert row.state == "quarantined"


async def test_a_month_later_what_was_in_flight_is_still_taken_up(world: World, database: Database) -> None:
    """The service was switched off in the middle, and switched on again after its holidays."""
    spent = await put_running(database, worker="w", attempt=3, started_at=NOW - timedelta(days=40))
    [again] = await begin(database, worker="w")
    await world.look()
    await world.pass_(15)
    row = await run_row(database, spent.id)
    assert (row.state, row.duration_ms) == ("lost", 2**31 - 1)
    assert (await run_row(database, again.id)).state == "quarantined"


@pytest.mark.heavy(on="mariadb")
async def test_where_ones_own_beats_stand_still_nobody_is_dead(world: World, database: Database) -> None:
    """The database answers and takes no writes: all beats stand still, and the first to write again would bury the
    others."""
    [run] = await begin(database, worker="w")
    await world.beat("w", "reaper")
    await world.look()
    await world.pass_(60)
    assert (await run_row(database, run.id)).state == "running"
    await world.pass_(DEAD_AFTER_S - 1, alive=["reaper"])
    assert (await run_row(database, run.id)).state == "running", "not before it has been silent for as long as that"
    await world.pass_(20, alive=["reaper"])
    assert (await run_row(database, run.id)).state == "quarantined"


# -- what becomes of their runs ------------------------------------------------------------------------------


async def bury_w(database: Database, **options: Any) -> int:
    async with database.write() as session:
        return await bury(session, dead=Sighting("w", None), now=NOW + timedelta(seconds=20), **options)


async def test_a_lost_attempt_counts_and_the_run_is_next_tried_alone(database: Database) -> None:
    [run] = await begin(database)
    with logged() as lines:
        assert await bury_w(database) == 1
        assert lines.ends() == []
    row = await run_row(database, run.id)
    assert (row.state, row.attempt, row.worker, row.error) == ("quarantined", 1, None, None)
    assert row.seq > run.seq
    [attempt] = await rows(database, RunAttempt)
    assert (attempt.run_id, attempt.number, attempt.state, attempt.worker) == (run.id, 1, "lost", "w")
    assert (attempt.started_at, attempt.finished_at) == (NOW, NOW + timedelta(seconds=20))


async def test_what_the_dead_had_dispatched_is_queued_again_and_word_of_it_comes_too_late(database: Database) -> None:
    await ask_for(database, 2)
    [first, second] = (await dispatch_from(database, worker="w")).runs
    [mine] = await take_all(database, [first], worker="x")
    assert await bury_w(database) == 0, "it was at none"
    assert await states(database) == {"queued": 1, "running": 1}
    assert await take_all(database, [second], worker="x") == []
    [again] = (await dispatch_from(database, worker="x")).runs
    assert await take_all(database, [second], worker="x") == []
    assert [run.id for run in await take_all(database, [again], worker="x")] == [second.id]
    assert mine.id == first.id


@pytest.mark.parametrize(("error", "state"), [(None, "lost"), (ERROR, "failed")])
async def test_after_the_last_attempt_it_is_lost_or_failed_of_what_is_known(
    database: Database, error: dict[str, Any] | None, state: str
) -> None:
    run = await put_running(database, attempt=3, max_attempts=3, unique_key="k", owner_id=new_id())
    with logged() as lines:
        assert await bury_w(database, error=error) == 1
        [end] = lines.ends(run.id)
        assert (end["event"], end["attempt"], end["user_id"]) == (f"run.{state}", 3, str(run.owner_id))
        assert end["duration_ms"] == 20_000
    row = await run_row(database, run.id)
    assert (row.state, row.error, row.finished_at) == (state, error, NOW + timedelta(seconds=20))
    assert (row.duration_ms, row.worker, row.unique_key) == (20_000, "w", None)


async def test_what_a_process_died_of_is_kept_with_each_attempt(database: Database) -> None:
    [run] = await begin(database)
    await bury_w(database, error=ERROR)
    row = await run_row(database, run.id)
    assert (row.state, row.error) == ("quarantined", ERROR)
    assert [(each.state, each.error) for each in await rows(database, RunAttempt)] == [("failed", ERROR)]


async def test_one_that_was_to_be_cancelled_is(database: Database) -> None:
    [run] = await begin(database)
    async with database.write() as session:
        await cancel(session, run_id=run.id, now=NOW)
    with logged() as lines:
        assert await bury_w(database) == 1
        assert [line["event"] for line in lines.ends(run.id)] == ["run.cancelled"]
    assert (await run_row(database, run.id)).state == "cancelled"
    assert await count(database, RunAttempt) == 0


async def test_a_run_of_a_tick_is_lost(world: World, database: Database) -> None:
    async with database.write() as session:
        run = await ledger.begin(session, job=JobName.SEND_EMAILS, worker="w", now=NOW)
    with logged() as lines:
        assert await bury_w(database) == 1
        assert [line["event"] for line in lines.ends(run.id)] == ["run.lost"]
    await ledger.succeed(database, run=run, result={"sent": 1}, now=NOW)  # whoever was at it comes too late
    row = await run_row(database, run.id)
    assert (row.state, row.result) == ("lost", None)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_was_buried_alive_does_not_tell_of_the_end_again(database: Database, cancelled: bool) -> None:
    """Its attempts were spent, so burying ended it; the worker comes back with an end of its own."""
    run = await put_running(database, attempt=3)
    if cancelled:
        async with database.write() as session:
            await cancel(session, run_id=run.id, now=NOW)
    with logged() as lines:
        assert await bury_w(database) == 1
        settler = Settler(database)
        at_work = asyncio.create_task(settler.run())
        settler.put(Outcome(run, RunState.SUCCEEDED, NOW, {"n": 1}))
        await settler.drained()
        at_work.cancel()
        assert [line["event"] for line in lines.ends(run.id)] == ["run.cancelled" if cancelled else "run.lost"]
    assert (await run_row(database, run.id)).result is None


async def test_all_of_a_thousand_and_more_and_nobody_elses(database: Database) -> None:
    await begin(database, 1100)
    other = (await begin(database, worker="another"))[0]
    assert await bury_w(database) == 1000
    assert await bury_w(database) == 100
    assert await bury_w(database) == 0
    assert await states(database) == {"quarantined": 1100, "running": 1}
    assert (await run_row(database, other.id)).attempt == 1
    assert await count(database, RunAttempt) == 1100


# -- at the same time ----------------------------------------------------------------------------------------


async def test_who_beats_in_time_is_not_buried(world: World, database: Database) -> None:
    [run] = await begin(database, worker="w")
    await world.beat("w")
    seen = (await one(database, Worker)).beat
    await world.beat("w")
    async with database.write() as session:
        assert await bury(session, dead=Sighting("w", seen), now=NOW) == 0
        assert await bury(session, dead=Sighting("w", None), now=NOW) == 0
    assert (await run_row(database, run.id)).state == "running"
    assert await count(database, Worker) == 1


async def test_a_beat_and_a_burial_at_once_one_of_them_holds(world: World, database: Database) -> None:
    """Either it lives and has its run, or it is dead and hears so with this very beat."""
    for number in range(12):
        name = f"w{number}"
        [run] = await begin(database, worker=name)
        await world.beat(name)
        seen = (await one(database, Worker, Worker.name == name)).beat

        async def bury_it(name: str = name, seen: int = seen) -> int:
            return await database.retry_write(lambda session: bury(session, dead=Sighting(name, seen), now=NOW))

        first, second = (bury_it(), world.beat(name)) if number % 2 else (world.beat(name), bury_it())
        await asyncio.gather(first, second)
        row = await run_row(database, run.id)
        worker = await one(database, Worker, Worker.name == name)
        assert worker.beat == seen + 1
        assert row.state in ("running", "quarantined")
        assert row.worker == (name if row.state == "running" else None)


async def test_many_reapers_at_once_bury_once(world: World, database: Database) -> None:
    await begin(database, 40, worker="w")
    spent = await put_running(database, worker="w", attempt=3)
    await world.beat("w")
    seen = (await one(database, Worker)).beat

    async def reap() -> int:
        return await database.retry_write(lambda session: bury(session, dead=Sighting("w", seen), now=NOW))

    with logged() as lines:
        assert sum(await asyncio.gather(*(reap() for _ in range(6)))) == 41
        assert [line["run_id"] for line in lines.ends()] == [str(spent.id)]
    assert await world.unfinished() == {"quarantined": 40, "lost": 1}
    assert await count(database, RunAttempt) == 40


async def test_an_end_and_a_burial_at_once_one_of_them_holds(database: Database) -> None:
    runs = await begin(database, 60)

    async def end() -> int:
        outcomes = [Outcome(run, RunState.SUCCEEDED, NOW) for run in runs]
        return len(await database.retry_write(lambda session: settle(session, outcomes=outcomes)))

    async def take_over() -> int:
        return await database.retry_write(lambda session: bury(session, dead=Sighting("w", None), now=NOW))

    ended, lost = await asyncio.gather(end(), take_over())
    found = await states(database)
    assert found.get("succeeded", 0) == ended and found.get("quarantined", 0) == lost
    assert ended + lost == 60


# -- what nobody began ---------------------------------------------------------------------------------------


async def test_what_nobody_began_is_queued_again_after_30_seconds(world: World, database: Database) -> None:
    [lost, begun] = await ask_for(database, 2)
    sent = (await dispatch_from(database, worker="w")).runs
    await world.look()
    await world.pass_(UNBEGUN_AFTER_S - 2)
    assert await world.unfinished() == {"dispatched": 2}
    await set_(database, Run, begun, state="running", worker="reaper", started_at=NOW)
    await world.beat("reaper")
    await world.pass_(3, alive=["reaper"])
    row = await run_row(database, lost)
    assert (row.state, row.attempt, row.worker, row.seq) == ("queued", 0, None, 1)
    assert (await dispatch_from(database)).runs == [Dispatched(lost, sent[0].seq + 1)]
    assert (await run_row(database, begun)).state == "running"


async def test_what_is_sent_again_has_its_time_again(world: World, database: Database) -> None:
    [run_id] = await ask_for(database)
    for _ in range(3):
        await dispatch_from(database)
        await world.look()
        await world.pass_(UNBEGUN_AFTER_S - 2)
        assert await world.unfinished() == {"dispatched": 1}
        await set_(database, Run, run_id, state="queued")  # it went through other hands


async def test_the_reaper_leaves_no_run_where_there_was_nothing_to_do(world: World, database: Database) -> None:
    await begin(database, worker="w")
    await world.beat("w")
    await world.pass_(40, alive=["w"])
    assert world.reaped == []
    assert {row.job for row in await rows(database, Run)} == {"test_job"}
    assert await attempts(database, new_id()) == []


async def test_a_reaper_that_starts_when_all_are_dead_needs_its_time_first(world: World, database: Database) -> None:
    run: RunningJob = (await begin(database, worker="w"))[0]
    await world.beat("w")
    world.seconds += 10_000
    await world.look()
    await world.pass_(DEAD_AFTER_S - 1)
    assert (await run_row(database, run.id)).state == "running"
    await world.pass_(3)
    assert (await run_row(database, run.id)).state == "quarantined"
