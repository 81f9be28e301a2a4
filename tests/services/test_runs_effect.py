"""Effects in the database and the end of their run: both or neither, once, whatever the caller gets to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, RunAttempt, User
from models.run import RunState
from scheduler.database import Database
from scheduler.runs.dispatch import Dispatched, stage
from scheduler.runs.effect import Effect, succeed_with
from scheduler.runs.recover import Sighting, bury
from scheduler.runs.running import LONGEST_RESULT, RunningJob, RunTaken
from scheduler.runs.settle import TRIES, Outcome, settle
from tests.conftest import Stack
from tests.factories import NOW, user_row
from tests.services.engine import (
    FailingDatabase,
    begin,
    declare,
    executor_of,
    logged,
    run_row,
    take_all,
    until,
    until_states,
)
from tests.services.stored import count, one, set_


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


@pytest.fixture
async def failing(stack: Stack) -> AsyncIterator[FailingDatabase]:
    database = FailingDatabase(stack.database_url)
    yield database
    await database.dispose()


async def add_person(session: AsyncSession) -> dict[str, Any]:
    """An effect that can be counted, and done any number of times."""
    row = user_row("x")
    row["email"] = f"{row['id']}@example.com"
    await session.execute(insert(User), [row])
    return {"user_id": str(row["id"])}


async def effects(database: Database) -> int:
    return await count(database, User)


async def test_the_effect_and_the_end_commit_together(database: Database) -> None:
    [run] = await begin(database)

    async def effect(session: AsyncSession) -> dict[str, Any]:
        result = await add_person(session)
        if database.is_mysql:  # on SQLite nobody else is let in to look at what is written
            assert (await run_row(database, run.id)).state == "running"
            assert await effects(database) == 0
        return result

    with logged() as lines:
        result = await succeed_with(database, run=run, effect=effect)
        assert run.is_settled
        [line] = lines.ends(run.id)
        assert line["event"] == "run.succeeded" and "duration_ms" in line
    row = await run_row(database, run.id)
    assert (row.state, row.result) == ("succeeded", result)
    assert (await one(database, User)).id.hex == result["user_id"].replace("-", "")


class Refused(Exception):
    """The effect's own."""


async def raises(session: AsyncSession) -> dict[str, Any]:
    await add_person(session)
    raise Refused


async def too_large(session: AsyncSession) -> dict[str, Any]:
    await add_person(session)
    return {"x": "x" * LONGEST_RESULT}


async def no_dict(session: AsyncSession) -> dict[str, Any]:
    await add_person(session)
    return [1]  # type: ignore[return-value]


@pytest.mark.parametrize(("effect", "error"), [(raises, Refused), (too_large, ValueError), (no_dict, TypeError)])
async def test_an_effect_that_fails_leaves_nothing_and_the_run_unended(
    database: Database, effect: Effect, error: type[Exception]
) -> None:
    [run] = await begin(database)
    with logged() as lines:
        with pytest.raises(error):
            await succeed_with(database, run=run, effect=effect)
        assert lines.ends() == []
    assert await effects(database) == 0
    assert (await run_row(database, run.id)).state == "running" and not run.is_settled


@pytest.mark.parametrize(
    "change",
    [
        {"worker": "another"},
        {"seq": 7},
        {"state": "queued", "worker": None, "seq": 2},
        {"state": "cancelled", "seq": 2},
        {"state": "lost"},
    ],
)
async def test_a_run_that_is_no_longer_ours_has_no_effect(database: Database, change: dict[str, Any]) -> None:
    [run] = await begin(database)
    await set_(database, Run, run.id, **change)
    before = await run_row(database, run.id)
    done: list[int] = []

    async def effect(session: AsyncSession) -> dict[str, Any]:
        done.append(1)
        return await add_person(session)

    with pytest.raises(RunTaken):
        await succeed_with(database, run=run, effect=effect)
    assert (done, await effects(database)) == ([], 0)
    assert await run_row(database, run.id) == before


async def test_a_run_that_was_deleted_has_no_effect(database: Database) -> None:
    [run] = await begin(database)
    async with database.write() as session:
        await session.execute(Run.__table__.delete())
    with pytest.raises(RunTaken):
        await succeed_with(database, run=run, effect=add_person)
    assert await effects(database) == 0


async def test_two_hands_at_the_same_attempt_have_one_effect(database: Database) -> None:
    """As after a message that came twice would be, had the fence a hole."""
    [run] = await begin(database)
    results = await asyncio.gather(*(succeed_with(database, run=run, effect=add_person) for _ in range(5)))
    assert await effects(database) == 1
    assert len({result["user_id"] for result in results}) == 1


# -- the write that lands while the caller sees a failure, and the one that does not -------------------------


@pytest.mark.parametrize("failures", range(1, TRIES))
@pytest.mark.parametrize("fault", ["refused", "landed"])
async def test_a_fault_at_the_commit_the_effect_is_there_once(
    failing: FailingDatabase, fault: str, failures: int
) -> None:
    [run] = await begin(failing)
    setattr(failing, fault, 1)
    if failures > 1:
        failing.refused = failures - (fault == "landed")
    with logged() as lines:
        result = await succeed_with(failing, run=run, effect=add_person)
        assert [line["event"] for line in lines.ends(run.id)] == ["run.succeeded"]
    assert failing.failures >= 1
    assert await effects(failing) == 1
    row = await run_row(failing, run.id)
    assert (row.state, row.result, row.attempt) == ("succeeded", result, 1)


@pytest.mark.parametrize("fault", ["refused", "landed"])
async def test_where_the_caller_gives_up_the_next_attempt_finds_what_is_there(
    failing: FailingDatabase, database: Database, fault: str
) -> None:
    """All tries fail: the executor keeps the attempt from counting, and the run ends once, with one effect."""
    [run] = await begin(failing)

    async def perform(run: RunningJob) -> dict[str, Any]:
        return await succeed_with(failing, run=run, effect=add_person)

    # A first try that lands, or not; then none that comes through.
    setattr(failing, fault, 1)
    failing.refused += TRIES if fault == "refused" else TRIES - 1
    if fault == "refused":
        failing.refused -= 1
    with logged() as lines:
        async with executor_of(failing, perform, settler_database=database) as executor:
            task = executor.start(run)
            async with asyncio.timeout(20):
                await task
        row = await run_row(database, run.id)
        if fault == "landed":
            assert (row.state, row.attempt) == ("succeeded", 1)
            assert [line["event"] for line in lines.ends()] == ["run.succeeded"]
        else:
            assert (row.state, row.attempt, await effects(database)) == ("waiting", 0, 0)
            assert lines.ends() == []
    assert await effects(database) == (1 if fault == "landed" else 0)


@pytest.mark.heavy(on="mariadb")
@pytest.mark.faults
async def test_connections_cut_at_any_moment_leave_one_effect_and_one_end(stack: Stack, database: Database) -> None:
    """Real cuts, again and again, while runs end: by the server (MariaDB), or by a rollback under the hand (SQLite)."""
    runs = await begin(database, 40)
    over = asyncio.Event()
    cuts = 0

    async def cut() -> None:
        nonlocal cuts
        while not over.is_set():
            if stack.mariadb is not None:
                cuts += await asyncio.to_thread(stack.mariadb.disconnect_all, "punctual_tests")
            await asyncio.sleep(0.03)

    async def end(run: RunningJob) -> None:
        async def effect(session: AsyncSession) -> dict[str, Any]:
            result = await add_person(session)
            await asyncio.sleep(0.005)
            if stack.mariadb is None and run.seq == 1 and run.id.int % 3 == 0 and run.id not in broken:
                broken.add(run.id)
                connection = await session.connection()
                await connection.invalidate()
            return result

        broken: set[Any] = set()
        while True:
            try:
                await succeed_with(database, run=run, effect=effect)
            except RunTaken:
                raise
            except Exception:
                await asyncio.sleep(0.02)
            else:
                return

    cutting = asyncio.create_task(cut())
    try:
        async with asyncio.timeout(60):
            with logged() as lines:
                await asyncio.gather(*(end(run) for run in runs))
                assert sorted(line["run_id"] for line in lines.ends()) == sorted(str(run.id) for run in runs)
    finally:
        over.set()
        await cutting
    await until_states(database, {"succeeded": 40})
    assert await effects(database) == 40
    assert stack.mariadb is None or cuts > 0


async def test_of_an_attempt_that_was_buried_and_its_successor_one_has_the_effect(database: Database) -> None:
    """A worker that is paused in the middle, taken for dead, and goes on: its run was tried again meanwhile."""
    [slow] = await begin(database)
    async with database.write() as session:
        assert await bury(session, dead=Sighting("w", None), now=NOW) == 1
    await set_(database, Run, slow.id, state="dispatched", seq=slow.seq + 2)
    [quick] = await take_all(database, [Dispatched(slow.id, slow.seq + 2)], worker="b")
    results = await asyncio.gather(
        succeed_with(database, run=slow, effect=add_person),
        succeed_with(database, run=quick, effect=add_person),
        return_exceptions=True,
    )
    assert isinstance(results[0], RunTaken) and not isinstance(results[1], BaseException)
    assert await effects(database) == 1
    assert (await run_row(database, slow.id)).worker == "b"
    # Nor does what the slow one says of its end count, whatever it is.
    async with database.write() as session:
        assert await settle(session, outcomes=[Outcome(slow, RunState.FAILED, NOW, error={"type": "X"})]) == []
    assert await count(database, RunAttempt) == 1  # the lost one


async def test_cancelled_in_the_middle_of_the_effect_nothing_is_done(database: Database) -> None:
    [run] = await begin(database)
    begun, never = asyncio.Event(), asyncio.Event()

    async def effect(session: AsyncSession) -> dict[str, Any]:
        result = await add_person(session)
        begun.set()
        await never.wait()
        return result

    async def perform(run: RunningJob) -> dict[str, Any]:
        return await succeed_with(database, run=run, effect=effect)

    async with executor_of(database, perform) as executor:
        task = executor.start(run)
        await begun.wait()
        executor.cancel(run.key)
        await task
    assert (await run_row(database, run.id)).state == "cancelled"
    assert await effects(database) == 0
    async with database.write() as session:  # and its locks are gone
        assert await stage(session, now=NOW) == 0


async def test_a_database_that_refuses_again_and_again_is_the_callers_to_see(failing: FailingDatabase) -> None:
    [run] = await begin(failing)
    failing.refused = TRIES
    with pytest.raises(OperationalError):
        await succeed_with(failing, run=run, effect=add_person)
    assert failing.failures == TRIES and not run.is_settled

    async def nothing_left() -> bool:
        return await effects(failing) == 0

    assert await until(nothing_left)
