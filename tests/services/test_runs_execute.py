"""Performing runs: so many at once, each for so long, each with exactly one end, whatever its job does."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState
from scheduler.clock import now
from scheduler.database import Database, DatabaseTimeout
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.runs.backoff import Backoff
from scheduler.runs.dispatch import Dispatched
from scheduler.runs.effect import succeed_with
from scheduler.runs.execute import MOST_HANDS
from scheduler.runs.running import AT_WORK, LONGEST_RESULT, JobFailed, RunningJob, RunTaken
from tests.conftest import Stack
from tests.factories import NOW
from tests.services.engine import (
    FailingDatabase,
    ask_for,
    attempts,
    begin,
    cut,
    declare,
    dispatch_from,
    executor_of,
    logged,
    put,
    put_running,
    run_row,
    states,
    take_all,
    until_states,
)
from tests.services.stored import rows, set_

log = get_logger("test")


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


@pytest.fixture(autouse=True)
def nobody_is_left_at_work() -> Any:
    """Whatever a test does, this process forgets what it is no longer at."""
    before = set(AT_WORK)
    yield
    left = AT_WORK - before
    AT_WORK.difference_update(left)
    assert not left


class Gate:
    """A job that waits until it is let go, and counts who is inside."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: list[RunningJob] = []
        self.most = 0
        self.begun: list[RunningJob] = []
        self.arrived = asyncio.Condition()

    async def __call__(self, run: RunningJob) -> dict[str, Any] | None:
        self.inside.append(run)
        self.begun.append(run)
        self.most = max(self.most, len(self.inside))
        async with self.arrived:
            self.arrived.notify_all()
        try:
            await self.open.wait()
        finally:
            self.inside.remove(run)
        return {"attempt": run.attempt}

    async def wait_for(self, count: int) -> None:
        """Until so many have begun."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.begun) >= count)


async def nothing(run: RunningJob) -> None:
    """A job."""


async def sent(database: Database, count: int, **fields: Any) -> list[Dispatched]:
    await ask_for(database, count, **fields)
    return (await dispatch_from(database, room=count)).runs


# -- how many ------------------------------------------------------------------------------------------------


async def test_never_more_at_once_than_it_may(database: Database) -> None:
    gate = Gate()
    dispatched = await sent(database, 25)
    async with executor_of(database, gate, concurrency=4) as executor:
        assert executor.free == 4
        # Messages come in any number, and overlap.
        beginning = asyncio.gather(*(executor.begin(dispatched[start : start + 10]) for start in (0, 10, 5, 20)))
        await gate.wait_for(4)
        await asyncio.sleep(0.1)
        assert (len(gate.begun), executor.free, len(executor.running)) == (4, 0, 4)
        assert await states(database) == {"running": 4, "dispatched": 21}, "what has no room is left to others"
        gate.open.set()
        async with asyncio.timeout(20):
            await beginning
        await until_states(database, {"succeeded": 25})
    assert gate.most == 4
    assert len({run.id for run in gate.begun}) == len(gate.begun) == 25
    assert executor.free == 4 and executor.running == []


async def test_room_comes_back_for_what_somebody_else_has_begun(database: Database) -> None:
    dispatched = await sent(database, 20)
    await set_(database, Run, dispatched[0].id, state="cancelled")
    async with executor_of(database, nothing, concurrency=2) as executor:
        async with asyncio.timeout(10):
            await executor.begin(dispatched)
            await executor.begin(dispatched)  # the same message once more
            await executor.begin([Dispatched(new_id(), 1) for _ in range(20)])
        await until_states(database, {"succeeded": 19, "cancelled": 1})
        assert executor.free == 2


async def test_many_are_begun_together(database: Database) -> None:
    freed: list[int] = []
    dispatched = await sent(database, 300)
    async with executor_of(database, nothing, concurrency=500, freed=lambda: freed.append(1)) as executor:
        await executor.begin(dispatched)
        await until_states(database, {"succeeded": 300})
    assert len({row.started_at for row in await rows(database, Run)}) == 1
    assert len(freed) >= 300


# -- how it ends ---------------------------------------------------------------------------------------------


async def perform_once(database: Database, perform: Any, *, run: RunningJob | None = None) -> tuple[Any, list[Any]]:
    """One attempt; returns the row and the records of the run's end."""
    if run is None:
        [run] = await begin(database)
    run.started_at = now()
    with logged() as lines:
        async with executor_of(database, perform) as executor:
            async with asyncio.timeout(20):
                await executor.start(run)
        ends = lines.ends()
    assert executor.free == 10
    return await run_row(database, run.id), ends


async def test_a_success_has_one_record_and_its_result(database: Database) -> None:
    [run] = await begin(database, owner_id=new_id(), request_id="r-1")

    async def perform(run: RunningJob) -> dict[str, Any]:
        log.info("work.done")
        await asyncio.sleep(0.02)
        return {"ünï": ["🪴", 1]}

    with logged() as lines:
        async with executor_of(database, perform) as executor:
            await executor.start(run)
        [inside] = lines.events("work.done")
        [end] = lines.ends()
    row = await run_row(database, run.id)
    assert (row.state, row.result, row.error) == ("succeeded", {"ünï": ["🪴", 1]}, None)
    fields = {"run_id": str(run.id), "job": "test_job", "attempt": 1, "trigger": "manual", "request_id": "r-1"}
    for line in (inside, end):
        assert line | fields == line
    assert (end["event"], end["duration_ms"]) == ("run.succeeded", row.duration_ms)


async def fails(run: RunningJob) -> None:
    raise ValueError("half a pair \udc80, and a 🪴")


async def test_an_attempt_that_fails_is_tried_again_later_and_the_last_one_fails_the_run(database: Database) -> None:
    [first] = await begin(database)
    row, ends = await perform_once(database, fails, run=first)
    assert (row.state, row.attempt, row.error["type"], ends) == ("waiting", 1, "ValueError", [])
    assert row.error["message"] == "half a pair ?, and a 🪴"
    assert 'raise ValueError("half' in row.error["traceback"]
    assert 4 < (row.available_at - now()).total_seconds() < 10  # the job's retry: from 5 s to 10 s
    assert await attempts(database, first.id) == [(1, "failed")]
    for number in (2, 3):
        run = await put_again(database, first.id)
        row, ends = await perform_once(database, fails, run=run)
        assert row.attempt == number
    assert (row.state, row.error["type"]) == ("failed", "ValueError")
    [end] = ends
    assert (end["event"], end["attempt"], end["error"]["type"]) == ("run.failed", 3, "ValueError")
    assert await attempts(database, first.id) == [(1, "failed"), (2, "failed")]


async def put_again(database: Database, run_id: Any) -> RunningJob:
    """The next attempt, begun."""
    async with database.write() as session:
        await session.execute(update(Run).where(Run.id == run_id).values(state="queued", available_at=None))
    [again] = (await dispatch_from(database)).runs
    [run] = await take_all(database, [again])
    return run


async def test_a_job_says_that_it_failed_and_what_it_leaves(database: Database) -> None:
    async def perform(run: RunningJob) -> None:
        raise JobFailed("It answered 500.", result={"status": 500})

    row, ends = await perform_once(database, perform)
    assert (row.state, row.result, row.error["type"], ends) == ("waiting", {"status": 500}, "JobFailed", [])
    assert row.error["message"] == "It answered 500."


async def test_where_no_other_attempt_would_fare_better_there_is_none(database: Database) -> None:
    async def perform(run: RunningJob) -> None:
        raise JobFailed("There is nobody.", permanent=True)

    row, ends = await perform_once(database, perform)
    assert (row.state, row.attempt, [end["event"] for end in ends]) == ("failed", 1, ["run.failed"])


@pytest.mark.parametrize("result", [{1: 2}, {"x": "x" * LONGEST_RESULT}, "text", {"x": "\udc80"}])
async def test_a_failure_whose_result_cannot_be_kept_is_kept_without_it(database: Database, result: Any) -> None:
    async def perform(run: RunningJob) -> None:
        raise JobFailed("no", result=result)

    row, _ = await perform_once(database, perform)
    assert (row.state, row.result, row.error["message"]) == ("waiting", None, "no")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"x": "x" * LONGEST_RESULT}, "larger than 262144 bytes"),
        (["a"], "is a dict, not a list"),
        ({1: 2}, "Dict key must be"),
    ],
)
async def test_a_result_that_cannot_be_kept_fails_the_attempt_in_words(
    database: Database, result: Any, message: str
) -> None:
    async def perform(run: RunningJob) -> Any:
        return result

    row, _ = await perform_once(database, perform)
    assert (row.state, row.result) == ("waiting", None)
    assert message in row.error["message"]


async def test_a_job_that_takes_too_long_is_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, timeout_s=0.05, attempts=1)
    stopped: list[int] = []

    async def perform(run: RunningJob) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            stopped.append(1)

    row, ends = await perform_once(database, perform)
    assert (row.state, row.error["type"], row.error["message"]) == ("failed", "TimedOut", "did not end within 0.05 s")
    assert (stopped, len(ends)) == ([1], 1)
    assert row.duration_ms < 5000


async def test_a_time_out_of_its_own_is_an_error_like_any_other(database: Database) -> None:
    async def perform(run: RunningJob) -> None:
        raise TimeoutError("the other side")

    row, _ = await perform_once(database, perform)
    assert (row.state, row.error["type"], row.attempt) == ("waiting", "TimeoutError", 1)


async def exits(run: RunningJob) -> None:
    sys.exit(3)


async def recurses(run: RunningJob) -> None:
    await recurses(run)


@pytest.mark.parametrize(("perform", "kind"), [(exits, "SystemExit"), (recurses, "RecursionError")])
async def test_a_job_that_means_to_end_the_process_only_fails(database: Database, perform: Any, kind: str) -> None:
    row, _ = await perform_once(database, perform)
    assert (row.state, row.error["type"]) == ("waiting", kind)
    assert perform.__name__ in row.error["traceback"]


async def test_a_job_that_nobody_knows_here_waits_for_a_worker_that_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await put_running(database, job="of_a_newer_version")
    row, ends = await perform_once(database, nothing, run=run)
    assert (row.state, row.attempt, ends) == ("waiting", 0, [])
    assert 8 < (row.available_at - now()).total_seconds() <= 10
    declare(monkeypatch, "declared_without_a_performer")
    run = await put_running(database, job="declared_without_a_performer")
    row, _ = await perform_once(database, nothing, run=run)
    assert (row.state, row.attempt) == ("waiting", 0)


async def test_a_run_that_was_taken_away_ends_here_without_a_word(database: Database) -> None:
    async def perform(run: RunningJob) -> None:
        raise RunTaken

    [run] = await begin(database)
    row, ends = await perform_once(database, perform, run=run)
    assert (row.state, ends) == ("running", [])


async def test_what_a_job_does_after_its_effect_does_not_change_its_end(database: Database) -> None:
    async def perform(run: RunningJob) -> None:
        async def effect(session: Any) -> dict[str, Any]:
            return {"n": 1}

        await succeed_with(database, run=run, effect=effect)
        raise ValueError("afterwards")

    row, ends = await perform_once(database, perform)
    assert (row.state, row.result, [end["event"] for end in ends]) == ("succeeded", {"n": 1}, ["run.succeeded"])


# -- when our own database is away ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [cut(), DatabaseTimeout(), PoolTimeoutError()])
async def test_a_database_that_is_away_during_a_job_does_not_count_as_an_attempt(
    database: Database, error: Exception
) -> None:
    async def perform(run: RunningJob) -> None:
        raise error

    row, ends = await perform_once(database, perform)
    assert (row.state, row.attempt, row.error, ends) == ("waiting", 0, None, [])
    assert 0.5 < (row.available_at - now()).total_seconds() <= 2
    assert await attempts(database, row.id) == []


async def test_a_job_that_asks_the_database_for_what_it_can_never_have_fails_in_the_end(database: Database) -> None:
    """To us its mistake looks like an outage each time; it must not be tried for ever."""

    async def perform(run: RunningJob) -> None:
        async with database.read() as session:
            await session.execute(text("SELECT no_such_column FROM run"))

    run = await put_running(database, seq=MOST_HANDS - 1, attempt=1)
    row, _ = await perform_once(database, perform, run=run)
    assert (row.state, row.attempt) == ("waiting", 0)
    assert (row.available_at - now()).total_seconds() <= 30
    run = await put_running(database, seq=MOST_HANDS, attempt=3)
    row, ends = await perform_once(database, perform, run=run)
    assert (row.state, row.error["type"], len(ends)) == ("failed", "OperationalError", 1)


@pytest.mark.faults
@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_the_database_killed_during_a_job(stack: Stack, database: Database) -> None:
    assert stack.mariadb is not None
    killed = asyncio.Event()

    async def perform(run: RunningJob) -> None:
        async with database.write() as session:
            await session.execute(select(Run.id).where(Run.id == run.id).with_for_update())
            await asyncio.to_thread(stack.mariadb.kill)  # type: ignore[union-attr]
            killed.set()
            await session.execute(select(Run.id))

    [run] = await begin(database)
    async with executor_of(database, perform) as executor:
        executor.start(run)
        await killed.wait()
        await asyncio.to_thread(stack.mariadb.start)
        await until_states(database, {"waiting": 1})
    assert (await run_row(database, run.id)).attempt == 0


async def test_a_beginning_that_landed_unseen_is_not_begun_blindly(stack: Stack) -> None:
    """The caller sees a failure: nothing is performed, and no room is lost; the heartbeat finds it on record."""
    database = FailingDatabase(stack.database_url)
    gate = Gate()
    dispatched = await sent(database, 3)
    async with executor_of(database, gate, concurrency=3) as executor:
        database.landed = 1
        await executor.begin(dispatched)
        assert (gate.begun, executor.free) == ([], 3)
        assert await states(database) == {"running": 3}
        others = await sent(database, 2)
        database.refused = 1
        await executor.begin(others)
        assert (gate.begun, executor.free) == ([], 3)
        assert await states(database) == {"running": 3, "dispatched": 2}
    await database.dispose()


# -- stopping ------------------------------------------------------------------------------------------------


async def test_a_cancelled_run_ends_as_cancelled_and_only_that_one(database: Database) -> None:
    gate = Gate()
    first, second = await begin(database, 2)
    with logged() as lines:
        async with executor_of(database, gate) as executor:
            executor.start(first)
            executor.start(second)
            await gate.wait_for(2)
            executor.cancel(first.key)
            executor.cancel(first.key)  # each beat says so again
            executor.cancel((first.id, first.seq + 1))  # another attempt, which is not here
            await until_states(database, {"cancelled": 1, "running": 1})
            gate.open.set()
        assert [line["event"] for line in lines.ends(first.id)] == ["run.cancelled"]
        assert [line["event"] for line in lines.ends(second.id)] == ["run.succeeded"]


@pytest.mark.parametrize("order", ["cancel", "abandon"])
async def test_an_order_that_comes_before_a_runs_first_step_loses_no_room(database: Database, order: str) -> None:
    """A task that is cancelled before it has begun runs none of its code."""
    [run] = await begin(database)
    async with executor_of(database, nothing, concurrency=1) as executor:
        task = executor.start(run)
        getattr(executor, order)(run.key)
        await asyncio.wait([task])
        assert (executor.free, executor.running) == (1, [])
    assert run.key not in AT_WORK


async def test_an_abandoned_run_leaves_the_row_to_whoever_has_it(database: Database) -> None:
    gate = Gate()
    [run] = await begin(database)
    with logged() as lines:
        async with executor_of(database, gate) as executor:
            task = executor.start(run)
            await gate.wait_for(1)
            await set_(database, Run, run.id, worker="another", seq=run.seq + 1)
            executor.abandon(run.key)
            await task
        assert lines.ends() == []
    row = await run_row(database, run.id)
    assert (row.state, row.worker) == ("running", "another")


async def test_one_that_is_abandoned_after_its_end_landed_unseen_has_its_record(stack: Stack) -> None:
    """The commit landed and its answer was lost; before the next try, the beat misses the run and abandons it."""
    database = FailingDatabase(stack.database_url)

    async def effect(session: AsyncSession) -> dict[str, Any]:
        return {"done": 1}

    async def perform(run: RunningJob) -> dict[str, Any]:
        database.landed = 1
        return await succeed_with(database, run=run, effect=effect)

    [run] = await begin(database)
    with logged() as lines:
        async with executor_of(database, perform) as executor:
            task = executor.start(run)
            await until_states(database, {"succeeded": 1})
            executor.abandon(run.key)
            await task
        assert [line["event"] for line in lines.ends(run.id)] == ["run.succeeded"]
    assert (await run_row(database, run.id)).result == {"done": 1}
    await database.dispose()


async def test_an_attempt_that_was_taken_and_is_still_ending_does_not_hide_the_next(database: Database) -> None:
    """The same run in one worker twice: one attempt that does not hear that it is over, and the one that counts."""
    let_go = asyncio.Event()
    begun: list[int] = []

    async def stubborn(run: RunningJob) -> None:
        begun.append(run.seq)
        if run.seq > 1:
            await asyncio.sleep(60)
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()

    [first] = await begin(database)
    async with executor_of(database, stubborn) as executor:
        old = executor.start(first)
        await asyncio.sleep(0.02)
        executor.abandon(first.key)
        await set_(database, Run, first.id, state="dispatched", seq=3)
        await executor.begin([Dispatched(first.id, 3)])
        await asyncio.sleep(0.05)
        assert begun == [1, 3] and len(executor.running) == 2
        let_go.set()
        await old
        assert (await run_row(database, first.id)).state == "running"
        assert (first.id, 3) in AT_WORK
        assert [run.seq for run in executor.running] == [3], "the one that counts can still be cancelled"
        executor.cancel((first.id, 3))
        await until_states(database, {"cancelled": 1})


async def test_stopping_lets_what_is_under_way_end_and_hands_back_the_rest_uncounted(database: Database) -> None:
    quick_may_end = asyncio.Event()
    begun: list[RunningJob] = []

    async def perform(run: RunningJob) -> None:
        begun.append(run)
        await (quick_may_end.wait() if len(begun) <= 2 else asyncio.sleep(60))

    runs = await begin(database, 5)
    with logged() as lines:
        async with executor_of(database, perform) as executor:
            for run in runs:
                executor.start(run)
            await asyncio.sleep(0.02)
            stopping = asyncio.create_task(executor.stop(patience_s=0.5))
            await asyncio.sleep(0.05)
            assert not stopping.done()
            quick_may_end.set()
            await stopping
            await until_states(database, {"succeeded": 2, "queued": 3})
        assert len(lines.ends()) == 2 and len(lines.events("run.handed_back")) == 3
    for row in await rows(database, Run, Run.state == "queued"):
        assert (row.attempt, row.worker, row.started_at) == (0, None, None)
    assert len((await dispatch_from(database)).runs) == 3


async def test_what_waits_for_room_when_it_stops_is_given_back_at_once(database: Database) -> None:
    gate = Gate()
    dispatched = await sent(database, 6)
    async with executor_of(database, gate, concurrency=2) as executor:
        beginning = [asyncio.create_task(executor.begin(dispatched[start : start + 3])) for start in (0, 3)]
        await gate.wait_for(2)
        # arq ends what it is at first; that must neither lose nor hold up what waits.
        beginning[0].cancel()
        stopping = asyncio.create_task(executor.stop(patience_s=5))
        await until_states(database, {"running": 2, "queued": 4}, seconds=3)
        gate.open.set()
        await stopping
        await asyncio.wait(beginning)
        await executor.begin(dispatched)  # a message that comes now is not begun
        await until_states(database, {"succeeded": 2, "queued": 4})
    assert len(gate.begun) == 2


@pytest.mark.heavy(on="mariadb")
async def test_a_caller_that_is_cancelled_while_runs_begin_leaves_none_half_begun(database: Database) -> None:
    """As arq does with all that it is at when Redis goes away."""
    for _ in range(10):
        dispatched = await sent(database, 5)
        gate = Gate()
        async with executor_of(database, gate, concurrency=2) as executor:
            beginning = asyncio.create_task(executor.begin(dispatched))
            for _ in range(3):
                await asyncio.sleep(0)
            beginning.cancel()
            await asyncio.wait([beginning])
            await gate.wait_for(2)
            assert len(executor.running) == 2
            gate.open.set()
            await gate.wait_for(5)
    await until_states(database, {"succeeded": 50})


async def test_what_is_being_taken_when_it_stops_is_ended_too(database: Database) -> None:
    gate = Gate()
    dispatched = await sent(database, 4)
    async with executor_of(database, gate) as executor:
        beginning = asyncio.create_task(executor.begin(dispatched))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await executor.stop(patience_s=0.3)
        await until_states(database, {"queued": 4})
        await beginning


@pytest.mark.heavy(on="mariadb")
async def test_a_job_that_does_not_stop_does_not_hold_up_the_worker(database: Database) -> None:
    async def stubborn(run: RunningJob) -> None:
        end = asyncio.get_running_loop().time() + 2.5
        while asyncio.get_running_loop().time() < end:
            try:
                await asyncio.sleep(end - asyncio.get_running_loop().time())
            except asyncio.CancelledError:
                continue

    [run] = await begin(database)
    async with executor_of(database, stubborn) as executor:
        task = executor.start(run)
        await asyncio.sleep(0.02)
        async with asyncio.timeout(2):
            await executor.stop(patience_s=0.1)
        assert not task.done()
        await task


async def test_the_next_attempt_waits_as_long_as_the_job_says(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, attempts=5, retry=Backoff(base_s=100, cap_s=300, least_s=99))
    for attempt, longest in ((1, 100), (2, 200), (3, 300), (4, 300)):
        run = await put_running(database, attempt=attempt, max_attempts=5)
        row, _ = await perform_once(database, fails, run=run)
        assert 98 < (row.available_at - now()).total_seconds() <= longest


async def test_a_run_keeps_the_number_of_attempts_that_it_was_asked_for_with(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(database, max_attempts=1)
    declare(monkeypatch, attempts=9)
    [again] = (await dispatch_from(database)).runs
    [run] = await take_all(database, [again], now=NOW + timedelta(seconds=1))
    row, _ = await perform_once(database, fails, run=run)
    assert row.state == RunState.FAILED
