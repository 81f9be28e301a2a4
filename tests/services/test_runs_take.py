"""Beginning runs: whoever shows the right number first has it, and nobody else."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from models import Run
from models.run import RunState
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.control import cancel
from scheduler.runs.dispatch import Dispatched, return_unbegun
from scheduler.runs.jobs import DEFAULT_QUEUE, QUEUES, SCHEDULES_QUEUE
from scheduler.runs.running import RunningJob
from scheduler.runs.take import take_quarantined
from tests.factories import NOW
from tests.services.engine import ask_for, begin, declare, dispatch_from, put, run_row, states, take_all
from tests.services.stored import rows, set_, statements

LATER = NOW + timedelta(seconds=5)


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


async def test_what_is_begun_is_on_record_and_in_hand(database: Database) -> None:
    owner, schedule = new_id(), new_id()
    [run_id] = await ask_for(
        database,
        owner_id=owner,
        schedule_id=schedule,
        scheduled_for=NOW,
        arguments={"a": 1},
        request_id="r",
    )
    await set_(database, Run, run_id, progress_done=7, progress_total=9)  # an earlier attempt's
    sent = (await dispatch_from(database, worker="a")).runs
    [run] = await take_all(database, sent, worker="b", now=LATER)
    row = await run_row(database, run_id)
    assert (row.state, row.worker, row.seq, row.attempt, row.started_at) == ("running", "b", 1, 1, LATER)
    assert (row.progress_done, row.progress_total) == (0, 0)
    assert run == RunningJob(
        id=run_id,
        job="test_job",
        trigger="manual",
        attempt=1,
        started_at=LATER,
        worker="b",
        seq=1,
        max_attempts=3,
        owner_id=owner,
        arguments={"a": 1},
        schedule_id=schedule,
        scheduled_for=NOW,
        queued_at=NOW,
        request_id="r",
    )


async def test_only_with_the_number_that_it_was_sent_with(database: Database) -> None:
    await ask_for(database)
    [sent] = (await dispatch_from(database)).runs
    for wrong in (sent.seq - 1, sent.seq + 1):
        assert await take_all(database, [Dispatched(sent.id, wrong)]) == []
    assert await take_all(database, [Dispatched(new_id(), 1)]) == []
    assert await take_all(database, []) == []
    async with database.write() as session:
        assert await return_unbegun(session, dispatched=[sent]) == 1
    assert await take_all(database, [sent]) == []  # it is queued again
    [again] = (await dispatch_from(database)).runs
    assert await take_all(database, [sent]) == []  # the late message
    assert [run.id for run in await take_all(database, [again])] == [sent.id]
    assert await take_all(database, [again]) == []  # the message that came twice


async def test_a_cancelled_one_is_not_begun(database: Database) -> None:
    await ask_for(database, 3)
    sent = (await dispatch_from(database)).runs
    async with database.write() as session:
        await cancel(session, run_id=sent[1].id, now=NOW)
    begun = await take_all(database, sent)
    assert [run.id for run in begun] == [sent[0].id, sent[2].id]
    assert await states(database) == {"running": 2, "cancelled": 1}


@pytest.mark.parametrize("takers", [2, 8])
async def test_of_many_takers_one_has_each(database: Database, takers: int) -> None:
    await ask_for(database, 200)
    sent = (await dispatch_from(database, room=200)).runs
    has: list[tuple[UUID, str]] = []

    async def take_some(worker: str, order: int) -> None:
        mine = sent if order % 2 else sent[::-1]  # in either order: the database's order is what counts
        for start in range(0, 200, 50):
            for run in await take_all(database, mine[start : start + 50], worker=worker):
                has.append((run.id, worker))

    await asyncio.gather(*(take_some(f"w{number}", number) for number in range(takers)))
    assert len(has) == 200
    on_record = {(row.id, row.worker) for row in await rows(database, Run)}
    assert set(has) == on_record
    assert {row.attempt for row in await rows(database, Run)} == {1}


async def test_many_cost_two_statements(database: Database) -> None:
    costs = []
    for count in (2, 400):
        await ask_for(database, count)
        sent = (await dispatch_from(database, room=count)).runs
        with statements(database) as seen:
            assert len(await take_all(database, sent)) == count
        costs.append(len([each for each in seen if each.startswith(("SELECT", "UPDATE"))]))
    assert costs == [2, 2]


# -- quarantine ----------------------------------------------------------------------------------------------


async def take_one(database: Database, *queues: str, worker: str = "child") -> RunningJob | None:
    async with database.write() as session:
        return await take_quarantined(session, queues=queues or QUEUES, worker=worker, now=LATER)


async def test_a_quarantined_run_is_begun_alone_the_most_urgent_and_oldest_first(database: Database) -> None:
    assert await take_one(database) is None
    await begin(database)
    await ask_for(database)
    newest = [
        await put(database, state="quarantined", priority=priority, seq=4, attempt=1) for priority in (2, 1, 1, 0)
    ]
    elsewhere = await put(database, state="quarantined", queue=SCHEDULES_QUEUE, priority=0)
    first = await take_one(database, DEFAULT_QUEUE)
    assert first is not None and (first.id, first.seq, first.attempt, first.worker) == (newest[3], 5, 2, "child")
    row = await run_row(database, first.id)
    assert (row.state, row.seq, row.attempt, row.started_at, row.worker) == ("running", 5, 2, LATER, "child")
    others = [await take_one(database, DEFAULT_QUEUE) for _ in range(4)]
    assert [run and run.id for run in others] == [newest[1], newest[2], newest[0], None]
    assert (await run_row(database, elsewhere)).state == "quarantined"


async def test_a_quarantined_run_goes_to_one_of_many(database: Database) -> None:
    for _ in range(12):
        await put(database, state="quarantined")
    has: list[UUID] = []

    async def take_some(worker: str) -> None:
        while await states(database) != {RunState.RUNNING.value: 12}:
            if (run := await take_one(database, worker=worker)) is not None:
                has.append(run.id)

    await asyncio.gather(*(take_some(f"c{number}") for number in range(4)))
    assert len(has) == len(set(has)) == 12
