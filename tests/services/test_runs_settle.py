"""Settling: each attempt's end is decided once and written once, in bulk, whatever it holds and whatever goes wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import make_url

from models import Run, RunAttempt
from models.run import RunState, RunTrigger
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.control import cancel
from scheduler.runs.dispatch import Dispatched
from scheduler.runs.running import AT_WORK, LONGEST_RESULT, RunningJob
from scheduler.runs.settle import Outcome, Settler, check_result, error_of, settle
from tests.conftest import Stack
from tests.factories import NOW
from tests.services.engine import (
    FailingDatabase,
    attempts,
    begin,
    declare,
    logged,
    put_running,
    run_row,
    states,
    take_all,
    until_states,
)
from tests.services.stored import count, rows, set_, statements

LATER = NOW + timedelta(seconds=3, microseconds=123_456)
ERROR = {"type": "ValueError", "message": "no", "traceback": "Traceback …"}


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


async def settled(database: Database, *outcomes: Outcome) -> list[Outcome]:
    return await database.retry_write(lambda session: settle(session, outcomes=outcomes))


# -- what is written -----------------------------------------------------------------------------------------


async def test_a_success(database: Database) -> None:
    [run] = await begin(database)
    run.report_progress(5, 10)
    outcome = Outcome(run, RunState.SUCCEEDED, LATER, {"made": 3})
    assert await settled(database, outcome) == [outcome]
    row = await run_row(database, run.id)
    assert (row.state, row.result, row.error, row.finished_at) == ("succeeded", {"made": 3}, None, LATER)
    assert (row.duration_ms, row.attempt, row.worker, row.started_at) == (3123, 1, "w", NOW)
    assert (row.progress_done, row.progress_total, row.available_at) == (5, 10, None)
    assert await attempts(database, run.id) == []


async def test_a_failed_attempt_waits_and_is_on_record(database: Database) -> None:
    [run] = await begin(database)
    again_at = NOW + timedelta(minutes=1)
    await settled(database, Outcome(run, RunState.WAITING, LATER, {"status": 500}, ERROR, again_at))
    row = await run_row(database, run.id)
    assert (row.state, row.available_at, row.attempt, row.worker) == ("waiting", again_at, 1, None)
    assert (row.result, row.error, row.finished_at, row.duration_ms) == ({"status": 500}, ERROR, None, None)
    assert row.seq > run.seq
    [attempt] = await rows(database, RunAttempt)
    assert (attempt.run_id, attempt.number, attempt.state, attempt.worker) == (run.id, 1, "failed", "w")
    assert (attempt.started_at, attempt.finished_at, attempt.error) == (NOW, LATER, ERROR)


async def test_the_last_attempt_fails_the_run(database: Database) -> None:
    [run] = await begin(database)
    await settled(database, Outcome(run, RunState.FAILED, LATER, None, ERROR))
    row = await run_row(database, run.id)
    assert (row.state, row.error, row.result, row.finished_at) == ("failed", ERROR, None, LATER)
    assert await count(database, RunAttempt) == 0  # the run itself tells of it


async def test_handed_back_is_as_if_it_had_never_begun(database: Database) -> None:
    [run] = await begin(database)
    await settled(database, Outcome(run, RunState.QUEUED, LATER, counts=False))
    row = await run_row(database, run.id)
    assert (row.state, row.attempt, row.worker, row.started_at, row.finished_at) == ("queued", 0, None, None, None)
    assert row.seq > run.seq
    assert await count(database, RunAttempt) == 0


async def test_an_end_frees_the_unique_key_and_a_retry_does_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, is_unique=True)
    [run] = await begin(database)
    assert (await run_row(database, run.id)).unique_key == "test_job"
    await settled(database, Outcome(run, RunState.WAITING, LATER, error=ERROR, again_at=LATER))
    assert (await run_row(database, run.id)).unique_key == "test_job"
    await set_(database, Run, run.id, state="running", worker="w", seq=run.seq)
    await settled(database, Outcome(run, RunState.SUCCEEDED, LATER))
    assert (await run_row(database, run.id)).unique_key is None
    [other] = await begin(database)
    assert other.id != run.id


TEXTS = [
    "plain",
    "'single' \"double\" `back`",
    "back\\slash \\n \\u0041 \\\\ %s %% :name ?",
    "line\nbreak\r\n\ttab\x0b\x1f\x7f",
    "NUL \x00 in the middle",
    "ünïcödé 漢字 🪴 \u200b\u202e \ufeff",
    "\\'; DROP TABLE run; --",
    '{"not": "nested"}',
    "$[*] $.to_state",
    "</script><!-- ]]>",
    "x" * 5000,
    "",
]


async def test_five_hundred_at_once_each_as_it_was_meant(database: Database) -> None:
    """Every kind of end in one statement, with everything that a text may hold."""
    runs = await begin(database, 500)
    outcomes: list[Outcome] = []
    for number, run in enumerate(runs):
        text = TEXTS[number % len(TEXTS)]
        result = {"text": text, text or "empty": [None, True, 1.5, -(2**62), {"deep": [text]}]}
        error = {"type": "E", "message": text, "traceback": text or None}
        at = NOW + timedelta(microseconds=number * 1000)
        outcomes.append(
            [
                Outcome(run, RunState.SUCCEEDED, at, result),
                Outcome(run, RunState.SUCCEEDED, at, None),
                Outcome(run, RunState.FAILED, at, result, error),
                Outcome(run, RunState.WAITING, at, result, error, at + timedelta(days=1)),
                Outcome(run, RunState.QUEUED, at, counts=False),
                Outcome(run, RunState.CANCELLED, at),
                Outcome(run, RunState.WAITING, at, again_at=at, counts=False),
            ][number % 7]
        )
    with statements(database) as seen:
        ended = await settled(database, *outcomes)
    assert {outcome.run.id for outcome in ended} == {run.id for run in runs}
    assert len([each for each in seen if "run" in each]) <= 6
    tried = {row.run_id: row for row in await rows(database, RunAttempt)}
    for outcome in outcomes:
        row = await run_row(database, outcome.run.id) if outcome is outcomes[0] else None
        assert row is None or row.state == outcome.state
    found = {row.id: row for row in await rows(database, Run)}
    for outcome in outcomes:
        row = found[outcome.run.id]
        assert (row.state, row.result, row.error) == (outcome.state.value, outcome.result, outcome.error)
        assert row.finished_at == (outcome.at if outcome.is_final else None)
        assert row.available_at == outcome.again_at
        assert row.attempt == (1 if outcome.counts else 0)
        assert (outcome.run.id in tried) == (outcome.state is RunState.WAITING and outcome.counts)
        if outcome.run.id in tried:
            assert tried[outcome.run.id].error == outcome.error


@pytest.mark.heavy(on="mariadb")
async def test_results_of_the_greatest_size_by_the_score(database: Database) -> None:
    """Together more than the database takes in one packet (16 MiB by default), and quotes that grow on the way."""
    runs = await begin(database, 70)
    quotes = check_result({"body": '"\\' * (LONGEST_RESULT // 5)})
    plain = check_result({"body": "x" * (LONGEST_RESULT - 100)})
    results = [quotes if number < 10 else plain for number in range(70)]
    await settled(
        database, *(Outcome(run, RunState.SUCCEEDED, LATER, each) for run, each in zip(runs, results, strict=True))
    )
    assert await states(database) == {"succeeded": 70}
    assert (await run_row(database, runs[5].id)).result == quotes
    assert (await run_row(database, runs[50].id)).result == plain


@pytest.mark.parametrize(("days", "expected"), [(-1, 0), (40, 2**31 - 1), (100_000, 2**31 - 1)])
async def test_a_clock_that_jumps_leaves_a_duration_that_can_be_kept(
    database: Database, days: int, expected: int
) -> None:
    [run] = await begin(database)
    await settled(database, Outcome(run, RunState.SUCCEEDED, NOW + timedelta(days=days)))
    row = await run_row(database, run.id)
    assert (row.state, row.duration_ms) == ("succeeded", expected)


async def test_a_thousand_and_more(database: Database) -> None:
    runs = await begin(database, 1200)
    ended = await settled(database, *(Outcome(run, RunState.SUCCEEDED, LATER) for run in reversed(runs)))
    assert len(ended) == 1200
    assert await states(database) == {"succeeded": 1200}


def test_a_result_that_cannot_be_kept_is_refused() -> None:
    assert check_result(None) is None
    assert check_result({}) is None
    assert check_result({"a": "x" * (LONGEST_RESULT - 8)}) is not None
    with pytest.raises(ValueError, match="larger than 262144 bytes"):
        check_result({"a": "x" * LONGEST_RESULT})
    with pytest.raises(TypeError, match="is a dict, not a list"):
        check_result([1])
    for unfit in ({1: 2}, {"a": "\udc80"}):
        with pytest.raises(TypeError):
            check_result(unfit)


def test_an_error_is_kept_with_the_end_of_its_traceback() -> None:
    try:
        raise ValueError("half a pair \udc80 " + "x" * 50_000)
    except ValueError as error:
        kept = error_of(error)
    assert kept["type"] == "ValueError" and len(kept["message"]) == 2000
    assert kept["message"].startswith("half a pair ? x")
    assert len(kept["traceback"]) == 10_000 and kept["traceback"].endswith("x\n")
    assert error_of(ValueError("\udc80"))["traceback"] == "ValueError: ?\n"


# -- the fence -----------------------------------------------------------------------------------------------


async def test_what_was_taken_away_is_left_alone(database: Database) -> None:
    theirs = await begin(database, 5)
    mine = (await begin(database))[0]
    await set_(database, Run, theirs[0].id, worker="another")
    await set_(database, Run, theirs[1].id, seq=theirs[1].seq + 1)
    await set_(database, Run, theirs[2].id, state="queued", worker=None, seq=theirs[2].seq + 1)
    await set_(database, Run, theirs[3].id, state="lost", seq=theirs[3].seq + 1)
    unknown = RunningJob(id=new_id(), job="test_job", trigger="cron", attempt=1, started_at=NOW, worker="w")
    before = {row.id: row for row in await rows(database, Run)}
    outcomes = [Outcome(run, RunState.SUCCEEDED, LATER, {"by": "w"}) for run in (*theirs[:4], unknown, mine)]
    assert [outcome.run.id for outcome in await settled(database, *outcomes)] == [mine.id]
    after = {row.id: row for row in await rows(database, Run)}
    for run in theirs:
        assert after[run.id] == before[run.id]
    assert await count(database, RunAttempt) == 0


async def test_an_end_that_landed_before_stands_and_is_told_once(database: Database) -> None:
    [run] = await begin(database)
    first = Outcome(run, RunState.SUCCEEDED, LATER, {"n": 1})
    assert await settled(database, first) == [first]
    # The caller saw a failure, and means to write something else by now.
    second = Outcome(run, RunState.FAILED, LATER + timedelta(seconds=9), None, ERROR)
    assert await settled(database, second) == [second]
    assert second.state is RunState.SUCCEEDED
    row = await run_row(database, run.id)
    assert (row.state, row.result, row.error, row.finished_at) == ("succeeded", {"n": 1}, None, LATER)


async def test_a_retry_that_landed_before_is_not_written_twice(database: Database) -> None:
    [run] = await begin(database)
    outcome = Outcome(run, RunState.WAITING, LATER, None, ERROR, LATER)
    assert await settled(database, outcome) == [outcome]
    before = await run_row(database, run.id)
    assert await settled(database, outcome) == []
    assert await run_row(database, run.id) == before
    assert await attempts(database, run.id) == [(1, "failed")]


@pytest.mark.parametrize("state", [RunState.WAITING, RunState.QUEUED])
async def test_a_run_that_was_to_be_cancelled_is_not_tried_again(database: Database, state: RunState) -> None:
    """Asked for while the attempt failed, or was handed back: it must not begin once more."""
    [run] = await begin(database)
    async with database.write() as session:
        await cancel(session, run_id=run.id, now=NOW)
    counts = state is RunState.WAITING
    outcome = Outcome(run, state, LATER, None, ERROR if counts else None, LATER if counts else None, counts)
    assert await settled(database, outcome) == [outcome]
    row = await run_row(database, run.id)
    assert (row.state, row.finished_at, row.available_at, row.unique_key) == ("cancelled", LATER, None, None)
    assert outcome.state is RunState.CANCELLED
    assert await count(database, RunAttempt) == 0


async def test_an_end_lets_the_next_of_its_schedule_go_at_once(database: Database) -> None:
    woken: list[int] = []
    database.wake_workers = lambda: woken.append(1)
    alone, of_schedule, retried = await put_running(database), await put_running(database), await put_running(database)
    of_schedule.schedule_id = retried.schedule_id = new_id()
    await settled(database, Outcome(alone, RunState.SUCCEEDED, LATER))
    await settled(database, Outcome(retried, RunState.WAITING, LATER, error=ERROR, again_at=LATER))
    assert woken == []
    await settled(database, Outcome(of_schedule, RunState.SUCCEEDED, LATER))
    assert woken == [1]


async def test_many_settle_the_same_runs_at_once(database: Database) -> None:
    runs = await begin(database, 300)

    async def work(number: int) -> int:
        mine = runs if number % 2 else runs[::-1]
        return len(await settled(database, *(Outcome(run, RunState.SUCCEEDED, LATER, {"by": number}) for run in mine)))

    assert await asyncio.gather(*(work(number) for number in range(6))) == [300] * 6
    found = await rows(database, Run)
    assert len({row.result["by"] for row in found}) == 1, "one of them wrote all"


# -- the settler ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def settler_of(database: Database, **options: Any) -> AsyncIterator[Settler]:
    settler = Settler(database, **options)
    task = asyncio.create_task(settler.run())
    try:
        yield settler
        assert not task.done(), "the settler lives as long as its worker"
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def failing(stack: Stack) -> AsyncIterator[FailingDatabase]:
    database = FailingDatabase(stack.database_url)
    yield database
    await database.dispose()


async def test_each_end_has_one_record_with_all_its_fields(database: Database) -> None:
    owner = new_id()
    ends = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)
    runs = await begin(database, 3, owner_id=owner, request_id="r-1", trigger=RunTrigger.EVENT)
    with logged() as lines:
        async with settler_of(database) as settler:
            for run, state in zip(runs, ends, strict=True):
                settler.put(Outcome(run, state, LATER, error=ERROR if state is RunState.FAILED else None))
            await settler.drained()
        for run, state in zip(runs, ends, strict=True):
            [line] = lines.ends(run.id)
            assert line["event"] == f"run.{state}"
            assert line["level"] == ("error" if state is RunState.FAILED else "info")
            fields = {"duration_ms": 3123, "job": "test_job", "attempt": 1, "trigger": "event"}
            assert line | fields | {"request_id": "r-1", "user_id": str(owner)} == line


async def test_what_is_no_end_has_no_end_record(database: Database) -> None:
    failed, handed_back = await begin(database, 2)
    with logged() as lines:
        async with settler_of(database) as settler:
            settler.put(Outcome(failed, RunState.WAITING, LATER, None, ERROR, LATER))
            settler.put(Outcome(handed_back, RunState.QUEUED, LATER, counts=False))
            await settler.drained()
        assert lines.ends() == []
        assert [line["run_id"] for line in lines.events("run.attempt_failed")] == [str(failed.id)]
        assert [line["run_id"] for line in lines.events("run.handed_back")] == [str(handed_back.id)]


@pytest.mark.parametrize("fault", ["refused", "landed"])
async def test_a_fault_at_the_commit_neither_loses_an_end_nor_tells_it_twice(
    failing: FailingDatabase, fault: str
) -> None:
    runs = await begin(failing, 20)
    with logged() as lines:
        async with settler_of(failing) as settler:
            setattr(failing, fault, 2)
            for run in runs:
                AT_WORK.add(run.key)
                settler.put(Outcome(run, RunState.SUCCEEDED, LATER, {"n": 1}))
            async with asyncio.timeout(10):
                await settler.drained()
        assert failing.failures == 2
        assert await states(failing) == {"succeeded": 20}
        assert sorted(line["run_id"] for line in lines.ends()) == sorted(str(run.id) for run in runs)
    assert not AT_WORK & {run.key for run in runs}


async def test_a_retry_that_landed_unseen_and_began_again_is_not_forgotten(failing: FailingDatabase) -> None:
    """What is still in the settler's hands is the first attempt; the second must not be taken for nobody's."""
    [first] = await begin(failing)
    AT_WORK.add(first.key)
    async with settler_of(failing) as settler:
        failing.landed = 1
        settler.put(Outcome(first, RunState.WAITING, LATER, None, ERROR, LATER))
        await until_states(failing, {"waiting": 1})
        await set_(failing, Run, first.id, state="dispatched", seq=first.seq + 2, available_at=None)
        [second] = await take_all(failing, [Dispatched(first.id, first.seq + 2)])
        AT_WORK.add(second.key)
        async with asyncio.timeout(10):
            await settler.drained()
        assert second.key in AT_WORK and first.key not in AT_WORK
        AT_WORK.discard(second.key)
    assert (await run_row(failing, first.id)).state == "running"


async def test_what_cannot_be_written_fails_alone_and_says_so(database: Database) -> None:
    fine, unfit, other = await begin(database, 3)
    with logged() as lines:
        async with settler_of(database) as settler:
            settler.put(Outcome(fine, RunState.SUCCEEDED, LATER, {"n": 1}))
            settler.put(Outcome(unfit, RunState.SUCCEEDED, LATER, {1: "a key that is no text"}))  # type: ignore[dict-item]
            settler.put(Outcome(other, RunState.SUCCEEDED, LATER, {"n": 2}))
            async with asyncio.timeout(10):
                await settler.drained()
        row = await run_row(database, unfit.id)
        assert (row.state, row.error["type"], row.result) == ("failed", "NotStored", None)
        assert await states(database) == {"succeeded": 2, "failed": 1}
        assert len(lines.ends()) == 3


@pytest.mark.faults
async def test_ends_wait_while_the_database_is_away_and_are_written_after(database: Database, stack: Stack) -> None:
    runs = await begin(database, 30)
    with logged() as lines:
        async with settler_of(database) as settler:
            if stack.mariadb is not None:
                await asyncio.to_thread(stack.mariadb.kill)
            else:
                path = make_url(stack.database_url).database
                assert path is not None
                holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                holder.execute("BEGIN IMMEDIATE")
            for run in runs[:15]:
                settler.put(Outcome(run, RunState.SUCCEEDED, LATER))
            await asyncio.sleep(0.7)
            for run in runs[15:]:
                settler.put(Outcome(run, RunState.SUCCEEDED, LATER))
            waiting = asyncio.create_task(settler.drained())
            await asyncio.sleep(0.1)
            assert not waiting.done()
            if stack.mariadb is not None:
                await asyncio.to_thread(stack.mariadb.start)
            else:
                holder.execute("ROLLBACK")
                holder.close()
            async with asyncio.timeout(20):
                await waiting
        assert await states(database) == {"succeeded": 30}
        assert len(lines.ends()) == 30
