"""Heartbeats: a worker says that it lives and how far it has come, and hears what it is to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from models import Run, Worker
from scheduler.database import Database
from scheduler.runs.control import cancel
from scheduler.runs.effect import succeed_with
from scheduler.runs.heartbeat import STRANGER_S, Heartbeat, Identity, Orders
from scheduler.runs.recover import disown
from scheduler.runs.running import AT_WORK, RunningJob
from tests.conftest import Stack
from tests.factories import NOW
from tests.services.engine import (
    FailingDatabase,
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
from tests.services.stored import count, one, set_, statements


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


@dataclass
class Seconds:
    """A monotonic clock that a test moves."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def at_work() -> Iterator[set[Any]]:
    """What this process is at, as it was before in the end."""
    before = set(AT_WORK)
    yield AT_WORK
    AT_WORK.clear()
    AT_WORK.update(before)


def heart(seconds: Seconds, name: str = "w") -> Heartbeat:
    identity = Identity(name=name, version="1.2", queues=["default"], concurrency=7, started_at=NOW)
    return Heartbeat(identity, seconds=seconds)


async def beat(database: Database, heartbeat: Heartbeat, *running: RunningJob, at: datetime = NOW) -> Orders:
    async with database.write() as session:
        return await heartbeat.beat(session, running=running, now=at)


async def test_it_says_who_it_is_and_that_it_lives(database: Database, seconds: Seconds) -> None:
    heartbeat = heart(seconds)
    await beat(database, heartbeat)
    row = await one(database, Worker)
    assert (row.name, row.version, row.queues, row.concurrency) == ("w", "1.2", ["default"], 7)
    assert (row.started_at, row.heartbeat_at) == (NOW, NOW)
    later = NOW + timedelta(seconds=1)
    await beat(database, heartbeat, at=later)
    again = await one(database, Worker)
    assert (again.beat, again.heartbeat_at) == (row.beat + 1, later)
    async with database.write() as session:
        await heartbeat.leave(session)
    assert await count(database, Worker) == 0
    await beat(database, heartbeat)  # as after it was taken for dead
    assert (await one(database, Worker)).beat > again.beat


async def test_an_idle_beat_costs_two_statements(database: Database, seconds: Seconds) -> None:
    heartbeat = heart(seconds)
    await beat(database, heartbeat)
    with statements(database) as seen:
        await beat(database, heartbeat)
    assert len([each for each in seen if each.startswith(("SELECT", "UPDATE", "INSERT"))]) == 2


# -- progress ------------------------------------------------------------------------------------------------


async def progress(database: Database, run: RunningJob) -> tuple[int, int]:
    row = await run_row(database, run.id)
    return row.progress_done, row.progress_total


async def test_progress_is_stored_with_the_next_beat_and_only_when_it_changed(
    database: Database, seconds: Seconds
) -> None:
    heartbeat = heart(seconds)
    first, second = await begin(database, 2)
    first.report_progress(3, 10)
    await beat(database, heartbeat, first, second)
    assert (await progress(database, first), await progress(database, second)) == ((3, 10), (0, 0))
    with statements(database) as seen:
        await beat(database, heartbeat, first, second)
    assert not [each for each in seen if "progress_done" in each]
    first.report_progress(10, 10)
    second.report_progress(1, 0)
    await beat(database, heartbeat, first, second)
    assert (await progress(database, first), await progress(database, second)) == ((10, 10), (1, 0))


async def test_progress_of_an_attempt_that_is_over_changes_nothing(database: Database, seconds: Seconds) -> None:
    [run] = await begin(database)
    run.report_progress(3, 10)
    await set_(database, Run, run.id, seq=run.seq + 2)
    await beat(database, heart(seconds), run)
    assert await progress(database, run) == (0, 0)


async def test_progress_that_a_failed_beat_did_not_store_is_told_again(stack: Stack, seconds: Seconds) -> None:
    database = FailingDatabase(stack.database_url)
    heartbeat = heart(seconds)
    [run] = await begin(database)
    run.report_progress(3, 10)
    database.refused = 1
    with pytest.raises(Exception, match="Lost connection"):
        await beat(database, heartbeat, run)
    await beat(database, heartbeat, run)
    assert await progress(database, run) == (3, 10)
    await database.dispose()


@pytest.mark.parametrize("told", [(2**80, 2**64), (-5, -1), (1.9, True)])
async def test_no_progress_that_a_job_may_report_keeps_its_worker_from_beating(
    database: Database, seconds: Seconds, told: tuple[Any, Any]
) -> None:
    [run] = await begin(database)
    run.report_progress(*told)
    await beat(database, heart(seconds), run)
    assert await count(database, Worker) == 1
    done, total = await progress(database, run)
    assert done >= 0 and total >= 0


@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_a_long_effect_does_not_hold_up_the_beat(database: Database, seconds: Seconds) -> None:
    """Whoever commits an effect holds its run for so long; the worker must not be taken for dead meanwhile."""
    heartbeat = heart(seconds)
    run, other = await begin(database, 2)
    holding, let_go = asyncio.Event(), asyncio.Event()

    async def effect(session: Any) -> dict[str, Any]:
        holding.set()
        await let_go.wait()
        return {"n": 1}

    under_way = asyncio.create_task(succeed_with(database, run=run, effect=effect))
    await holding.wait()
    run.report_progress(1, 2)
    other.report_progress(3, 4)
    async with asyncio.timeout(2):
        await beat(database, heartbeat, run, other)
    assert (await progress(database, run), await progress(database, other)) == ((0, 0), (3, 4))
    let_go.set()
    await under_way
    assert (await run_row(database, run.id)).state == "succeeded"


# -- orders --------------------------------------------------------------------------------------------------


async def test_it_hears_what_is_to_be_cancelled_of_its_own(
    database: Database, seconds: Seconds, at_work: set[Any]
) -> None:
    mine, other = await begin(database, 2)
    theirs = await put_running(database, worker="another")
    at_work.update((mine.key, other.key))
    async with database.write() as session:
        for run in (mine, theirs):
            await cancel(session, run_id=run.id, now=NOW)
    heartbeat = heart(seconds)
    for _ in range(2):  # until it has ended
        orders = await beat(database, heartbeat, mine, other)
        assert orders == Orders(cancel=[mine.key], abandon=[], strangers=[])


async def test_only_what_is_missed_twice_is_abandoned(database: Database, seconds: Seconds, at_work: set[Any]) -> None:
    heartbeat = heart(seconds)
    mine, taken, ending = await begin(database, 3)
    at_work.update(run.key for run in (mine, taken, ending))
    await set_(database, Run, taken.id, worker="another", seq=taken.seq + 2)
    await set_(database, Run, ending.id, state="succeeded")  # its coroutine has a moment to go
    far = NOW - timedelta(days=400)  # a wall clock that was set back changes nothing
    assert (await beat(database, heartbeat, mine, taken, ending, at=far)).abandon == []
    assert (await beat(database, heartbeat, mine, taken, at=far)).abandon == [taken.key]


async def test_the_run_again_is_not_the_attempt_that_was_lost(
    database: Database, seconds: Seconds, at_work: set[Any]
) -> None:
    """Taken from us, and given to us again: the old attempt goes, the new one stays."""
    heartbeat = heart(seconds)
    [old] = await begin(database)
    await set_(database, Run, old.id, seq=old.seq + 2, attempt=2)
    new = RunningJob(id=old.id, job=old.job, trigger="manual", attempt=2, started_at=NOW, worker="w", seq=old.seq + 2)
    at_work.update((old.key, new.key))
    await beat(database, heartbeat, old, new)
    assert await beat(database, heartbeat, old, new) == Orders(cancel=[], abandon=[old.key], strangers=[])


# -- strangers -----------------------------------------------------------------------------------------------


async def test_what_it_is_said_to_be_at_and_is_not_is_known_after_some_seconds(
    database: Database, seconds: Seconds, at_work: set[Any]
) -> None:
    heartbeat = heart(seconds)
    known, stranger = await begin(database, 2)
    at_work.add(known.key)
    for passed in (0, 1, 1, 0.9):
        seconds.at += passed
        assert (await beat(database, heartbeat, known)).strangers == []
    seconds.at = 1000.0 + STRANGER_S
    assert (await beat(database, heartbeat, known)).strangers == [stranger.key]
    # One that was between its commit and its first step is none.
    at_work.add(stranger.key)
    assert (await beat(database, heartbeat, known, stranger)).strangers == []
    at_work.discard(stranger.key)
    assert (await beat(database, heartbeat, known)).strangers == []


async def give_back(database: Database, *runs: RunningJob, worker: str = "w") -> int:
    async with database.write() as session:
        return await disown(session, attempts=[run.key for run in runs], worker=worker, now=NOW)


async def test_a_stranger_is_given_back_uncounted_and_at_once(database: Database) -> None:
    woken: list[int] = []
    first, second = await begin(database, 2)
    database.wake_workers = lambda: woken.append(1)
    assert await give_back(database, first) == 1
    assert woken == [1]
    row = await run_row(database, first.id)
    assert (row.state, row.attempt, row.worker, row.started_at) == ("queued", 0, None, None)
    assert row.seq > first.seq
    assert await attempts(database, first.id) == []
    assert (await run_row(database, second.id)).state == "running"


async def test_what_is_no_stranger_any_more_is_left_alone(database: Database) -> None:
    again, ended, anothers = await begin(database, 3)
    await set_(database, Run, again.id, seq=again.seq + 2)
    await set_(database, Run, ended.id, state="succeeded")
    await set_(database, Run, anothers.id, worker="another")
    assert await give_back(database, again, ended, anothers) == 0
    assert await states(database) == {"running": 2, "succeeded": 1}


async def test_a_stranger_that_was_to_be_cancelled_ends_so(database: Database) -> None:
    [run] = await begin(database)
    async with database.write() as session:
        await cancel(session, run_id=run.id, now=NOW)
    with logged() as lines:
        assert await give_back(database, run) == 1
        assert [line["event"] for line in lines.ends(run.id)] == ["run.cancelled"]
    assert (await run_row(database, run.id)).state == "cancelled"


async def test_a_ticks_run_without_an_end_is_lost_and_one_that_was_asked_for_is_not(database: Database) -> None:
    by_itself = await put_running(database, job="send_emails", trigger="cron", max_attempts=1)
    asked_for = await put_running(database, job="send_emails", trigger="manual", max_attempts=1)
    with logged() as lines:
        assert await give_back(database, by_itself, asked_for) == 2
        assert [(line["event"], line["run_id"]) for line in lines.ends()] == [("run.lost", str(by_itself.id))]
    assert (await run_row(database, by_itself.id)).state == "lost"
    assert (await run_row(database, asked_for.id)).state == "queued"


async def test_a_beginning_that_landed_unseen_runs_after_some_seconds(
    database: Database, seconds: Seconds, at_work: set[Any]
) -> None:
    """All of it: the commit landed, the worker saw a failure, and the run is neither lost nor counted."""
    [run] = await begin(database)
    heartbeat = heart(seconds)
    for _ in range(5):
        async with database.write() as session:
            orders = await heartbeat.beat(session, running=[], now=NOW)
            if orders.strangers:
                await disown(session, attempts=orders.strangers, worker="w", now=NOW)
        seconds.at += 1
    assert await states(database) == {"queued": 1}
    [again] = await take_all(database, (await dispatch_from(database)).runs)
    assert (again.id, again.attempt) == (run.id, 1)


async def test_who_leaves_knows_all_strangers_at_once(database: Database, seconds: Seconds, at_work: set[Any]) -> None:
    """What it is still to write the end of is none: that stays its own, and is missed if it is never written."""
    known, stranger, others = *(await begin(database, 2)), await put_running(database, worker="x")
    at_work.add(known.key)
    heartbeat = heart(seconds)
    async with database.read() as session:
        assert await heartbeat.strangers(session) == [stranger.key]
    assert (await run_row(database, others.id)).state == "running"


async def test_a_beat_is_not_held_up_by_whoever_looks_at_workers(database: Database, seconds: Seconds) -> None:
    heartbeat = heart(seconds)
    await beat(database, heartbeat)
    async with database.read() as session:
        await session.execute(select(Worker.beat))
        async with asyncio.timeout(2):
            await beat(database, heartbeat)
    async with database.write() as session:
        await session.execute(update(Worker).values(version="x"))
