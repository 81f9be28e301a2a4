"""Asking for runs: once by its key, in bulk, with the transaction that asks, and heard at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState, RunTrigger
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.enqueue import NewRun, enqueue, enqueue_many
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Outcome, settle
from tests.factories import NOW
from tests.services.engine import JOB, ask_for, begin, declare, run_row
from tests.services.stored import count, one, rows, set_, statements


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, queue="schedules", priority=2, attempts=7)


async def ask(database: Database, **fields: Any) -> UUID:
    usual: dict[str, Any] = {"job": JOB, "trigger": RunTrigger.MANUAL, "now": NOW}
    async with database.write() as session:
        return await enqueue(session, **(usual | fields))


async def test_a_run_is_what_its_job_declares(database: Database) -> None:
    owner, schedule = new_id(), new_id()
    run_id = await ask(
        database,
        trigger=RunTrigger.EVENT,
        arguments={"a": ["ü", None, {"b": 1}]},
        owner_id=owner,
        schedule_id=schedule,
        scheduled_for=NOW - timedelta(hours=1),
        request_id="r-1",
    )
    run = await one(database, Run)
    assert run.id == run_id
    assert (run.job, run.trigger, run.state, run.queue, run.priority) == (JOB, "event", "queued", "schedules", 2)
    assert (run.attempt, run.max_attempts, run.seq, run.available_at) == (0, 7, 0, None)
    assert (run.queued_at, run.started_at, run.finished_at) == (NOW, None, None)
    assert (run.owner_id, run.schedule_id, run.scheduled_for) == (owner, schedule, NOW - timedelta(hours=1))
    assert (run.arguments, run.request_id, run.result) == ({"a": ["ü", None, {"b": 1}]}, "r-1", None)


async def test_a_skipped_firing_is_final_from_the_start(database: Database) -> None:
    async with database.write() as session:
        new = NewRun(job=JOB, trigger=RunTrigger.CRON, state=RunState.SKIPPED, result={"reason": "overlap"})
        assert await enqueue_many(session, [new], now=NOW) == 1
    run = await one(database, Run)
    assert (run.state, run.finished_at, run.duration_ms, run.result) == ("skipped", NOW, 0, {"reason": "overlap"})


# -- once ----------------------------------------------------------------------------------------------------


async def test_the_same_idempotency_key_gives_the_same_run_even_when_it_has_ended(database: Database) -> None:
    first = await ask(database, idempotency_key="k")
    assert await ask(database, idempotency_key="k") == first
    await set_(database, Run, first, state="succeeded")
    assert await ask(database, idempotency_key="k") == first
    assert await ask(database, idempotency_key="K") != first  # keys are compared as they are written
    assert await ask(database) != await ask(database)  # no key, no comparison
    assert await count(database, Run) == 4


async def test_the_same_key_twice_in_one_transaction_gives_one_run(database: Database) -> None:
    async with database.write() as session:
        made = {
            await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, idempotency_key="k", now=NOW) for _ in range(3)
        }
        other = await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, now=NOW)  # the transaction is still good
    assert len(made) == 1
    assert {row.id for row in await rows(database, Run)} == made | {other}


async def test_the_same_key_in_ten_transactions_at_once_gives_one_run(database: Database) -> None:
    async def ask_slowly() -> UUID:
        async def work(session: AsyncSession) -> UUID:
            made = await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, idempotency_key="k", now=NOW)
            await asyncio.sleep(0.02)  # the others come meanwhile
            return made

        return await database.retry_write(work)

    made = await asyncio.gather(*(ask_slowly() for _ in range(10)))
    assert set(made) == {(await one(database, Run)).id}


async def test_a_key_whose_first_transaction_rolled_back_is_free(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, idempotency_key="k", now=NOW)
            raise ZeroDivisionError
    made = await ask(database, idempotency_key="k")
    assert (await one(database, Run)).id == made


async def test_a_unique_job_has_one_unfinished_run(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, is_unique=True)
    first = await ask(database)
    assert await ask(database) == first
    assert await count(database, Run) == 1
    async with database.write() as session:
        await session.execute(
            Run.__table__.update().values(state="succeeded", unique_key=None)  # as its end leaves it
        )
    second = await ask(database)
    assert second != first
    assert await ask(database) == second


async def test_a_unique_job_asked_for_by_ten_at_once_runs_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, is_unique=True)

    async def work(session: AsyncSession) -> UUID:
        return await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, now=NOW)

    made = await asyncio.gather(*(database.retry_write(work) for _ in range(10)))
    assert set(made) == {(await one(database, Run)).id}


async def test_asking_for_a_unique_job_while_its_run_ends_gives_that_one_or_a_new_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, is_unique=True)
    for _ in range(15):
        [run] = await begin(database)

        async def end(run: RunningJob = run) -> None:
            outcome = Outcome(run, RunState.SUCCEEDED, NOW)
            await database.retry_write(lambda session: settle(session, outcomes=[outcome]))

        async def ask_again(session: AsyncSession) -> UUID:
            return await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, now=NOW)

        _, *found = await asyncio.gather(end(), *(database.retry_write(ask_again) for _ in range(4)))
        unfinished = {row.id for row in await rows(database, Run, Run.state == "queued")}
        assert set(found) <= {run.id} | unfinished and len(unfinished) <= 1
        async with database.write() as session:
            await session.execute(Run.__table__.update().values(state="succeeded", unique_key=None))


async def test_a_key_that_was_used_goes_before_a_unique_jobs_unfinished_run(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, is_unique=True)
    for _ in range(5):  # whichever row the database happens to find first
        key = str(new_id())
        mine = await ask(database, idempotency_key=key)
        async with database.write() as session:
            await session.execute(Run.__table__.update().values(state="succeeded", unique_key=None))
        running = await ask(database)
        assert running != mine
        assert await ask(database, idempotency_key=key) == mine
        async with database.write() as session:
            await session.execute(Run.__table__.update().values(state="succeeded", unique_key=None))


async def test_another_mistake_is_not_taken_for_a_run_that_is_there(database: Database) -> None:
    schedule = new_id()
    await ask(database, schedule_id=schedule, scheduled_for=NOW)
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        await ask(database, schedule_id=schedule, scheduled_for=NOW, idempotency_key="new")
    with pytest.raises(KeyError):
        await ask(database, job="no_such_job")


# -- in bulk -------------------------------------------------------------------------------------------------


def firings(schedule: UUID, count: int, start: int = 0) -> list[NewRun]:
    return [
        NewRun(
            job=JOB,
            trigger=RunTrigger.CRON,
            schedule_id=schedule,
            scheduled_for=NOW + timedelta(minutes=number),
        )
        for number in range(start, start + count)
    ]


async def test_a_firing_that_has_its_run_is_left_out_and_the_others_are_made(database: Database) -> None:
    one_schedule, other = new_id(), new_id()
    async with database.write() as session:
        assert await enqueue_many(session, [], now=NOW) == 0
        assert await enqueue_many(session, firings(one_schedule, 10), now=NOW) == 10
    kept = {row.id for row in await rows(database, Run)}
    async with database.write() as session:
        new = [*firings(one_schedule, 10, 5), *firings(other, 3), *firings(other, 3)]
        assert await enqueue_many(session, new, now=NOW) == 8
    found = await rows(database, Run)
    assert kept < {row.id for row in found}
    assert len({(row.schedule_id, row.scheduled_for) for row in found}) == len(found) == 18


async def test_the_same_firings_by_four_at_once_are_made_once(database: Database) -> None:
    schedule = new_id()

    async def fire(start: int) -> int:
        new = firings(schedule, 200, start)
        return await database.retry_write(lambda session: enqueue_many(session, new, now=NOW))

    made = await asyncio.gather(*(fire(50 * (number % 2)) for number in range(4)))
    assert sum(made) == 250 == await count(database, Run)


async def test_many_firings_cost_the_same_number_of_statements(database: Database) -> None:
    costs = []
    for wanted in (10, 1000):
        with statements(database) as seen:
            async with database.write() as session:
                await enqueue_many(session, firings(new_id(), wanted), now=NOW)
        costs.append(len(seen))
    assert costs[0] == costs[1] <= 3


# -- with the transaction ------------------------------------------------------------------------------------


async def test_a_rollback_leaves_nothing_and_wakes_nobody_a_commit_wakes_once(database: Database) -> None:
    woken: list[int] = []
    unseen: list[int] = []

    def wake() -> None:
        woken.append(1)

    database.wake_workers = wake
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, now=NOW)
            await enqueue_many(session, firings(new_id(), 2), now=NOW)
            raise ZeroDivisionError
    assert (await count(database, Run), woken) == (0, [])
    async with database.write() as session:
        await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, now=NOW)
        await enqueue_many(session, firings(new_id(), 2), now=NOW)
        unseen = list(woken)
    assert unseen == []  # not before it is there to be seen
    assert len(woken) == 1
    async with database.write() as session:
        await session.execute(Run.__table__.update().values(request_id="x"))
    async with database.read():
        pass
    assert len(woken) == 1


async def test_a_caller_that_sees_a_failure_has_asked_for_nothing_or_for_all(database: Database) -> None:
    """Cut before the commit: nothing is there, and the next try makes it once."""
    with pytest.raises(RuntimeError):
        async with database.write() as session:
            await enqueue(session, job=JOB, trigger=RunTrigger.MANUAL, idempotency_key="k", now=NOW)
            connection = await session.connection()
            await connection.invalidate()
            raise RuntimeError
    assert await count(database, Run) == 0
    await ask(database, idempotency_key="k")
    assert await count(database, Run) == 1


async def test_what_is_asked_for_can_be_begun(database: Database) -> None:
    [run] = await begin(database, owner_id=new_id(), arguments={"x": 1})
    assert (run.job, run.attempt, run.max_attempts, run.arguments, run.queued_at) == (JOB, 1, 7, {"x": 1}, NOW)
    assert (await run_row(database, run.id)).state == "running"
    assert len(await ask_for(database, 3)) == 3
