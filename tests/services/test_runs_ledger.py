"""The ledger of ticks: a run where there was something to do, and exactly one end, whatever becomes of the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from models import Run
from scheduler.database import Database
from scheduler.runs import ledger
from scheduler.runs.jobs import JobName
from scheduler.runs.recover import disown
from scheduler.runs.running import AT_WORK, RunningJob
from scheduler.runs.settle import TRIES
from tests.conftest import Stack
from tests.factories import NOW
from tests.services.engine import FailingDatabase, logged
from tests.services.stored import count, one

LATER = NOW + timedelta(seconds=2)


@pytest.fixture(autouse=True)
def nobody_is_left_at_work() -> Iterator[None]:
    before = set(AT_WORK)
    yield
    left = AT_WORK - before
    AT_WORK.difference_update(left)
    assert not left


@pytest.fixture
async def failing(stack: Stack) -> AsyncIterator[FailingDatabase]:
    database = FailingDatabase(stack.database_url)
    yield database
    await database.dispose()


async def begin(database: Database) -> RunningJob:
    async with database.write() as session:
        return await ledger.begin(session, job=JobName.REAP, worker="w", now=NOW)


async def test_a_run_begins_with_what_it_does_first_and_ends_once(database: Database) -> None:
    run = await begin(database)
    row = await one(database, Run)
    assert (row.id, row.state, row.job, row.trigger, row.worker) == (run.id, "running", "reap", "cron", "w")
    assert (row.attempt, row.max_attempts, row.started_at, row.queued_at) == (1, 1, NOW, NOW)
    assert run.key in AT_WORK
    with logged() as lines:
        await ledger.succeed(database, run=run, result={"runs": 1}, now=LATER)
        # Whatever comes after it.
        await ledger.fail(database, run=run, error=ValueError("too late"), now=LATER)
        assert {line["event"] for line in lines.ends(run.id)} == {"run.succeeded"}
    row = await one(database, Run)
    assert (row.state, row.result, row.error, row.duration_ms) == ("succeeded", {"runs": 1}, None, 2000)


async def test_a_run_that_fails(database: Database) -> None:
    run = await begin(database)
    with logged() as lines:
        await ledger.fail(database, run=run, error=ValueError("no"), now=LATER)
        assert [line["event"] for line in lines.ends(run.id)] == ["run.failed"]
    row = await one(database, Run)
    assert (row.state, row.error["type"], row.result) == ("failed", "ValueError", None)


async def test_a_beginning_that_is_rolled_back_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            run = await ledger.begin(session, job=JobName.REAP, worker="w", now=NOW)
            raise ZeroDivisionError
    assert await count(database, Run) == 0
    assert run.key not in AT_WORK


async def test_a_beginning_that_landed_unseen_is_nobodys_and_ends_as_lost(failing: FailingDatabase) -> None:
    failing.landed = 1
    with pytest.raises(OperationalError):
        await begin(failing)
    row = await one(failing, Run)
    assert row.state == "running" and (row.id, row.seq) not in AT_WORK
    async with failing.write() as session:  # what the heartbeat does with it
        assert await disown(session, attempts=[(row.id, row.seq)], worker="w", now=LATER) == 1
    assert (await one(failing, Run)).state == "lost"


@pytest.mark.parametrize("fault", ["refused", "landed"])
async def test_a_fault_at_its_end_neither_loses_nor_doubles_it(failing: FailingDatabase, fault: str) -> None:
    run = await begin(failing)
    setattr(failing, fault, 1)
    with logged() as lines:
        await ledger.succeed(failing, run=run, result={"n": 1}, now=LATER)
        assert [line["event"] for line in lines.ends(run.id)] == ["run.succeeded"]
    assert (await one(failing, Run)).result == {"n": 1}


async def test_an_end_that_cannot_be_written_leaves_it_to_the_heartbeat(failing: FailingDatabase) -> None:
    run = await begin(failing)
    failing.refused = TRIES
    with pytest.raises(OperationalError):
        await ledger.succeed(failing, run=run, result={"n": 1}, now=LATER)
    assert (await one(failing, Run)).state == "running"
    assert run.key not in AT_WORK
