"""What people and operators do with runs: run now, cancel, retry."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import update

from models import Run
from models.run import UNFINISHED, RunState
from scheduler.database import Database
from scheduler.errors import Conflict, Invalid, NotFound
from scheduler.identifiers import new_id
from scheduler.runs.control import cancel, retry, run_now
from scheduler.runs.dispatch import release_blocked, stage
from scheduler.runs.jobs import JobName
from scheduler.runs.settle import Outcome, settle
from tests.factories import NOW
from tests.services.engine import (
    JOB,
    ask_for,
    begin,
    declare,
    dispatch_from,
    logged,
    put,
    put_running,
    run_row,
    states,
    take_all,
)
from tests.services.stored import count, one, rows

LATER = NOW + timedelta(seconds=9)
FINAL = [state for state in RunState if state not in UNFINISHED]


class Arguments(BaseModel):
    """Of the tests' job."""

    model_config = ConfigDict(extra="forbid")
    days: int = Field(ge=1)
    names: list[str] = []


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, arguments=Arguments)


async def stop(database: Database, run_id: UUID, *, now: datetime = LATER) -> None:
    async with database.write() as session:
        await cancel(session, run_id=run_id, now=now)


# -- cancel --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in UNFINISHED if state is not RunState.RUNNING])
async def test_what_nobody_has_begun_is_cancelled_at_once(database: Database, state: RunState) -> None:
    owner = new_id()
    run_id = await put(
        database,
        state=state.value,
        seq=4,
        attempt=1,
        worker="w" if state is RunState.DISPATCHED else None,
        available_at=NOW if state is RunState.WAITING else None,
        unique_key="k",
        owner_id=owner,
        request_id="r-1",
    )
    with logged() as lines:
        await stop(database, run_id)
        [end] = lines.ends(run_id)
        assert (end["event"], end["user_id"], end["request_id"]) == ("run.cancelled", str(owner), "r-1")
    row = await run_row(database, run_id)
    assert (row.state, row.finished_at, row.cancel_requested_at) == ("cancelled", LATER, LATER)
    assert (row.duration_ms, row.available_at, row.unique_key) == (0, None, None)
    assert row.seq > 4, "whoever holds a message for it can't begin it"
    async with database.write() as session:
        assert await stage(session, now=LATER) == 0
    assert (await dispatch_from(database)).runs == []


async def test_a_running_one_is_asked_to_stop_and_ends_by_its_worker(database: Database) -> None:
    [run] = await begin(database)
    with logged() as lines:
        await stop(database, run.id)
        await stop(database, run.id, now=LATER + timedelta(seconds=1))  # again: the first asked
        assert lines.ends() == []
    row = await run_row(database, run.id)
    assert (row.state, row.cancel_requested_at, row.seq, row.finished_at) == ("running", LATER, run.seq, None)
    async with database.write() as session:
        await settle(session, outcomes=[Outcome(run, RunState.CANCELLED, LATER)])
    assert (await run_row(database, run.id)).state == "cancelled"


@pytest.mark.parametrize("state", FINAL)
async def test_what_has_ended_is_not_cancelled(database: Database, state: RunState) -> None:
    run_id = await put(database, state=state.value, finished_at=NOW)
    before = await run_row(database, run_id)
    with pytest.raises(Conflict) as refused:
        await stop(database, run_id)
    assert refused.value.error_code == "already_finished"
    assert await run_row(database, run_id) == before
    with pytest.raises(NotFound):
        await stop(database, new_id())


async def test_a_cancel_that_is_rolled_back_leaves_no_record_of_an_end(database: Database) -> None:
    [run_id] = await ask_for(database)
    with logged() as lines:
        with pytest.raises(ZeroDivisionError):
            async with database.write() as session:
                await cancel(session, run_id=run_id, now=NOW)
                raise ZeroDivisionError
        assert lines.ends() == []
    assert await states(database) == {"queued": 1}


async def test_a_cancel_and_a_beginning_at_once_one_of_them_is_first(database: Database) -> None:
    for _ in range(10):
        [run_id] = await ask_for(database)
        sent = (await dispatch_from(database)).runs
        begun, _ = await asyncio.gather(
            take_all(database, sent),
            database.retry_write(lambda session, run_id=run_id: cancel(session, run_id=run_id, now=NOW)),  # type: ignore[misc]
        )
        row = await run_row(database, run_id)
        assert row.cancel_requested_at == NOW
        assert (row.state, row.attempt) == (("running", 1) if begun else ("cancelled", 0))


async def test_a_cancel_and_an_end_at_once_one_end_is_told(database: Database) -> None:
    for number in range(10):
        [run] = await begin(database)
        outcome = Outcome(run, RunState.SUCCEEDED if number % 2 else RunState.WAITING, NOW, again_at=None)
        if outcome.state is RunState.WAITING:
            outcome.again_at = NOW

        async def end(outcome: Outcome = outcome) -> list[Outcome]:
            return await database.retry_write(lambda session: settle(session, outcomes=[outcome]))

        async def ask(run_id: UUID = run.id) -> None:
            await database.retry_write(lambda session: cancel(session, run_id=run_id, now=NOW))

        await asyncio.gather(end(), ask(), return_exceptions=True)
        row = await run_row(database, run.id)
        assert row.state == ("succeeded" if number % 2 else "cancelled")


# -- retry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", FINAL)
async def test_what_has_ended_can_be_done_once_more(database: Database, state: RunState) -> None:
    owner = new_id()
    old = await put(
        database,
        state=state.value,
        arguments={"days": 3},
        owner_id=owner,
        attempt=3,
        idempotency_key="k",
        cancel_requested_at=NOW,
    )
    async with database.write() as session:
        new = await retry(session, run_id=old, now=LATER, request_id="r-2")
    row = await run_row(database, new)
    assert (row.state, row.trigger, row.retry_of, row.attempt, row.queued_at) == ("queued", "retry", old, 0, LATER)
    assert (row.arguments, row.owner_id, row.schedule_id, row.scheduled_for) == ({"days": 3}, owner, None, None)
    assert (row.request_id, row.cancel_requested_at, row.idempotency_key) == ("r-2", None, None)
    assert (await run_row(database, old)).state == state.value
    [begun] = await take_all(database, (await dispatch_from(database)).runs)
    assert begun.id == new


async def test_of_a_schedule_it_waits_behind_the_run_that_is_under_way(database: Database) -> None:
    schedule: dict[str, Any] = {
        "job": "run_schedule",
        "schedule_id": new_id(),
        "owner_id": new_id(),
        "queue": "schedules",
    }
    old = await put(database, state="failed", scheduled_for=NOW, **schedule)
    under_way = await put(database, state="running", scheduled_for=LATER, worker="w", **schedule)
    async with database.write() as session:
        new = await retry(session, run_id=old, now=LATER)
    async with database.write() as session:
        assert await release_blocked(session) == 0
    row = await run_row(database, new)
    assert (row.state, row.schedule_id, row.scheduled_for) == ("blocked", schedule["schedule_id"], None)
    async with database.write() as session:
        await session.execute(update(Run).where(Run.id == under_way).values(state="succeeded"))
    async with database.write() as session:
        assert await release_blocked(session) == 1
    assert (await run_row(database, new)).state == "queued"


@pytest.mark.parametrize("state", UNFINISHED)
async def test_what_has_not_ended_is_not_tried_beside_itself(database: Database, state: RunState) -> None:
    run_id = await put(database, state=state.value)
    with pytest.raises(Conflict) as refused:
        async with database.write() as session:
            await retry(session, run_id=run_id, now=NOW)
    assert refused.value.error_code == "not_finished"
    assert await count(database, Run) == 1


async def test_what_cannot_be_retried(database: Database) -> None:
    gone = await put(database, state="failed", job="of_an_older_version")
    for run_id, error in ((new_id(), NotFound), (gone, Conflict)):
        with pytest.raises(error):
            async with database.write() as session:
                await retry(session, run_id=run_id, now=NOW)
    assert await count(database, Run) == 1


async def test_a_unique_job_is_not_retried_beside_its_unfinished_run(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, is_unique=True)
    old = await put(database, state="failed")
    [unfinished] = await ask_for(database)
    async with database.write() as session:
        assert await retry(session, run_id=old, now=NOW) == unfinished


# -- run now -------------------------------------------------------------------------------------------------


async def ask(database: Database, **options: Any) -> UUID:
    usual: dict[str, Any] = {"name": JOB, "arguments": {"days": 1}, "now": NOW}
    async with database.write() as session:
        return await run_now(session, **(usual | options))


async def test_run_now(database: Database) -> None:
    run_id = await ask(database, arguments={"days": 2, "names": ["ü"]}, request_id="r-1")
    row = await one(database, Run)
    assert (row.id, row.trigger, row.state, row.owner_id) == (run_id, "manual", "queued", None)
    assert (row.arguments, row.request_id) == ({"days": 2, "names": ["ü"]}, "r-1")


async def test_run_now_once_by_its_key(database: Database) -> None:
    first = await ask(database, idempotency_key="k")
    assert await ask(database, idempotency_key="k") == first
    await database.retry_write(
        lambda session: session.execute(update(Run).where(Run.id == first).values(state="succeeded"))
    )
    assert await ask(database, idempotency_key="k") == first
    assert await ask(database) != first


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (None, ["/args/days"]),
        ({}, ["/args/days"]),
        ({"days": 0}, ["/args/days"]),
        ({"days": 1, "more": 1}, ["/args/more"]),
        ({"days": "x", "names": ["a", 1]}, ["/args/days", "/args/names/1"]),
    ],
)
async def test_wrong_arguments_are_refused_where_they_are_wrong(
    database: Database, arguments: dict[str, Any] | None, fields: list[str]
) -> None:
    with pytest.raises(Invalid) as refused:
        await ask(database, arguments=arguments)
    assert sorted(error.field for error in refused.value.errors) == fields
    assert await count(database, Run) == 0


async def test_what_cannot_be_run_now(database: Database) -> None:
    with pytest.raises(NotFound):
        await ask(database, name="no_such_job")
    with pytest.raises(Invalid):
        await ask(database, name=JobName.RUN_SCHEDULE, arguments=None)
    assert await rows(database, Run) == []


async def test_a_dispatch_in_between_does_not_make_a_cancelled_run_live_again(database: Database) -> None:
    run = await put_running(database, state="dispatched", attempt=0)
    await stop(database, run.id)
    async with database.write() as session:
        await settle(session, outcomes=[Outcome(run, RunState.SUCCEEDED, LATER)])
    assert (await run_row(database, run.id)).state == "cancelled"
