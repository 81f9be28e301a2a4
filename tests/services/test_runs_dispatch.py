"""Dispatching: by priority, fair by owner, each run once, at a cost that does not grow with what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunTrigger
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.control import cancel
from scheduler.runs.dispatch import (
    Dispatched,
    Pending,
    count_on_the_way,
    dispatch,
    look,
    release_blocked,
    return_everything_of,
    return_unbegun,
    stage,
)
from scheduler.runs.enqueue import NewRun, enqueue_many
from scheduler.runs.jobs import DEFAULT_QUEUE, QUEUES, SCHEDULES_QUEUE
from scheduler.runs.take import take
from tests.factories import NOW
from tests.services.engine import JOB, ask_for, declare, dispatch_from, put, run_row, states, take_all, until
from tests.services.stored import rows, set_, statements

SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


async def put_queued(database: Database, count: int, **columns: Any) -> list[UUID]:
    """So many queued runs, in bulk."""
    made: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "job": JOB,
            "trigger": "manual",
            "state": "queued",
            "queue": DEFAULT_QUEUE,
            "priority": 1,
            "attempt": 0,
            "max_attempts": 3,
            "seq": 0,
            "queued_at": NOW,
            "progress_done": 0,
            "progress_total": 0,
        }
        | columns
        for _ in range(count)
    ]
    async with database.write() as session:
        for start in range(0, count, 5000):
            await session.execute(insert(Run.__table__), made[start : start + 5000])
    return [row["id"] for row in made]


# -- which ---------------------------------------------------------------------------------------------------


async def test_a_dispatch_is_on_record_with_a_number_of_its_own(database: Database) -> None:
    [run_id] = await ask_for(database)
    first = await dispatch_from(database, worker="a")
    assert first == ([Dispatched(run_id, 1)], False)
    row = await run_row(database, run_id)
    assert (row.state, row.seq, row.worker, row.attempt, row.started_at) == ("dispatched", 1, "a", 0, None)
    assert await dispatch_from(database, worker="b") == ([], False)
    async with database.write() as session:
        assert await return_unbegun(session, dispatched=first.runs) == 1
    assert (await dispatch_from(database, worker="b")).runs == [Dispatched(run_id, 2)]


async def test_only_of_its_queue(database: Database) -> None:
    [mine] = await put_queued(database, 1, queue=SCHEDULES_QUEUE)
    await put_queued(database, 3)
    assert [each.id for each in (await dispatch_from(database, queue=SCHEDULES_QUEUE)).runs] == [mine]
    assert len((await dispatch_from(database)).runs) == 3


async def test_the_most_urgent_first_whoever_owns_them(database: Database) -> None:
    alice, bob = new_id(), new_id()
    low = await put_queued(database, 30, priority=2, owner_id=alice)
    normal = await put_queued(database, 30, priority=1, owner_id=bob)
    normal += await put_queued(database, 30, priority=1, owner_id=alice)
    high = await put_queued(database, 5, priority=0, owner_id=alice)
    first = [each.id for each in (await dispatch_from(database, room=20)).runs]
    assert set(first[:5]) == set(high), "the urgent ones come first in the dispatch too"
    assert set(first[5:]) < set(normal) and len(first) == 20
    rest = [each.id for each in (await dispatch_from(database, room=45)).runs]
    assert set(first[5:]) | set(rest) == set(normal)
    assert {each.id for each in (await dispatch_from(database)).runs} == set(low)


@pytest.mark.parametrize("room", [7, 1000])
async def test_an_owners_runs_go_in_the_order_in_which_they_were_asked_for(database: Database, room: int) -> None:
    alice, bob = new_id(), new_id()
    asked: dict[UUID, list[UUID]] = {alice: [], bob: []}
    for owner in (alice, bob, alice, alice, bob) * 6:
        asked[owner] += await put_queued(database, 1, owner_id=owner)
    gone: list[UUID] = []
    while batch := (await dispatch_from(database, room=room)).runs:
        gone += [each.id for each in batch]
    for owner in (alice, bob):
        assert [each for each in gone if each in asked[owner]] == asked[owner]


@pytest.mark.heavy(on="mariadb")
async def test_one_owners_ten_thousand_do_not_delay_anothers_one(database: Database) -> None:
    flood, service = new_id(), None
    await put_queued(database, 10_000, owner_id=flood)
    [systems] = await put_queued(database, 1, owner_id=service)
    [small] = await put_queued(database, 1, owner_id=new_id())
    batch = await dispatch_from(database, room=100)
    assert {small, systems} < {each.id for each in batch.runs}
    assert batch.has_more
    # Nor in the other direction: what there is room for goes to whoever has work.
    assert len(batch.runs) == 100


async def test_owners_share_equally_while_all_have_more_than_fits(database: Database) -> None:
    owners = [new_id() for _ in range(10)]
    of: dict[UUID, UUID] = {}
    for owner in owners:
        of |= dict.fromkeys(await put_queued(database, 50, owner_id=owner), owner)
    batch = await dispatch_from(database, room=100)
    shares = [sum(of[each.id] == owner for each in batch.runs) for owner in owners]
    assert shares == [10] * 10


@pytest.mark.heavy(on="mariadb")
async def test_where_more_owners_wait_than_share_one_dispatch_none_is_always_behind(database: Database) -> None:
    owners = [new_id() for _ in range(200)]
    for owner in owners:
        await put_queued(database, 1, owner_id=owner)
    flood = new_id()
    floods = set(await put_queued(database, 1000, owner_id=flood))
    gone: list[UUID] = []
    for _ in range(8):
        gone += [each.id for each in (await dispatch_from(database, room=100)).runs]
    assert len(set(gone) - floods) == 200, "the small ones are through"
    assert set(gone) & floods, "and the large one was not shut out"


async def test_it_says_whether_more_is_queued(database: Database) -> None:
    await put_queued(database, 10, owner_id=new_id())
    assert (await dispatch_from(database, room=9)).has_more
    await put_queued(database, 9, owner_id=new_id())
    last = await dispatch_from(database, room=10)
    assert (len(last.runs), last.has_more) == (10, False)


# -- once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dispatchers", [2, 10])
async def test_many_at_once_never_dispatch_the_same_run_twice(database: Database, dispatchers: int) -> None:
    for _ in range(12):
        await put_queued(database, 50, owner_id=new_id())
    gone: list[tuple[str, Dispatched]] = []

    async def drain(worker: str) -> None:
        while True:
            batch = await dispatch_from(database, room=40, worker=worker)
            gone.extend((worker, each) for each in batch.runs)
            if not batch.runs and not batch.has_more:
                return

    await asyncio.gather(*(drain(f"w{number}") for number in range(dispatchers)))
    assert len(gone) == len({each.id for _, each in gone}) == 600
    assert {each.seq for _, each in gone} == {1}
    by = {row.id: row.worker for row in await rows(database, Run)}
    assert all(by[each.id] == worker for worker, each in gone)


@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_a_dispatcher_finds_work_while_another_holds_what_is_next_in_turn(database: Database) -> None:
    for _ in range(3):
        await put_queued(database, 200, owner_id=new_id())
    async with database.write() as session:
        first = await dispatch(session, queue=DEFAULT_QUEUE, worker="a", room=60)
        second = await dispatch_from(database, worker="b", room=60)
        third = await dispatch_from(database, worker="c", room=60)
    gone = [each.id for each in (*first.runs, *second.runs, *third.runs)]
    assert len(gone) == len(set(gone)) == 180


async def test_a_dispatch_that_is_not_committed_keeps_nobody_from_them(database: Database) -> None:
    ids = await put_queued(database, 5)
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            assert len((await dispatch(session, queue=DEFAULT_QUEUE, worker="a", room=10)).runs) == 5
            raise ZeroDivisionError
    assert [each.id for each in (await dispatch_from(database)).runs] == ids


@pytest.mark.heavy(on="mariadb")
async def test_cancelling_while_others_dispatch_begin_and_return(database: Database) -> None:
    """Every statement on the same rows at once: no deadlock that is not retried, no run in two hands or in none."""
    ids = await put_queued(database, 200, owner_id=new_id())
    ids += await put_queued(database, 200, owner_id=new_id())
    begun: list[UUID] = []
    over = asyncio.Event()

    async def work(worker: str) -> None:
        while not over.is_set():
            batch = await dispatch_from(database, room=25, worker=worker)
            if not batch.runs:
                await asyncio.sleep(0.01)
                continue
            some, others = batch.runs[::2], batch.runs[1::2]
            taken = await take_all(database, some, worker=worker)
            begun.extend(run.id for run in taken)

            async def give_back(session: Any, others: list[Dispatched] = others) -> int:
                return await return_unbegun(session, dispatched=others)

            await database.retry_write(give_back)

    async def cancel_some() -> None:
        for run_id in ids[::7]:

            async def stop(session: Any, run_id: UUID = run_id) -> None:
                await cancel(session, run_id=run_id, now=NOW)

            await database.retry_write(stop)
            await asyncio.sleep(0)

    workers = [asyncio.create_task(work(f"w{number}")) for number in range(4)]
    await cancel_some()

    async def all_begun_or_cancelled() -> bool:
        return not (await states(database)).keys() - {"running", "cancelled"}

    await until(all_begun_or_cancelled, seconds=30)
    over.set()
    await asyncio.gather(*workers)
    assert len(begun) == len(set(begun))
    found = {row.id: row for row in await rows(database, Run)}
    assert all(found[run_id].state == "running" and found[run_id].attempt == 1 for run_id in begun)
    assert {row.id for row in found.values() if row.state == "cancelled"} == set(ids) - set(begun)


# -- what it costs -------------------------------------------------------------------------------------------


async def test_the_number_of_statements_does_not_grow_with_the_backlog(database: Database) -> None:
    costs = {}
    owners = [new_id() for _ in range(8)]
    for backlog in (200, 5000):
        for owner in owners:
            await put_queued(database, backlog // 8, owner_id=owner)
        with statements(database) as seen:
            await dispatch_from(database, room=50)
        costs[backlog] = len([each for each in seen if each.startswith(("SELECT", "UPDATE", "WITH"))])
    assert len(set(costs.values())) == 1 and costs[200] <= 5


async def test_a_look_is_one_statement(database: Database) -> None:
    await put_queued(database, 100)
    with statements(database) as seen:
        async with database.read() as session:
            await look(session, queues=QUEUES, now=NOW)
    assert len([each for each in seen if each.startswith("SELECT")]) == 1


# -- what there is to do -------------------------------------------------------------------------------------


async def test_a_look_tells_what_there_is_to_do(database: Database) -> None:
    async def see(*queues: str) -> Pending:
        async with database.read() as session:
            return await look(session, queues=queues or QUEUES, now=NOW)

    await put(database, state="succeeded")
    await put(database, state="running", worker="w", started_at=NOW)
    later = await put(database, state="waiting", available_at=NOW + SECOND)
    assert await see() == Pending(due=False, blocked=False, queued=False, quarantined=False)
    await set_(database, Run, later, available_at=NOW)
    assert await see() == Pending(due=True, blocked=False, queued=False, quarantined=False)
    await put(database, state="blocked", schedule_id=new_id())
    await put(database, state="quarantined", queue=SCHEDULES_QUEUE)
    await put(database)
    assert await see() == Pending(due=True, blocked=True, queued=True, quarantined=True)
    # Of queues that this worker does not take from, others have to see to.
    assert await see(SCHEDULES_QUEUE) == Pending(due=True, blocked=True, queued=False, quarantined=True)
    assert await see(DEFAULT_QUEUE) == Pending(due=True, blocked=True, queued=True, quarantined=False)


async def test_waiting_runs_are_queued_when_their_time_has_come_and_not_before(database: Database) -> None:
    due = await put(database, state="waiting", available_at=NOW, seq=5, attempt=1, error={"type": "X"})
    later = await put(database, state="waiting", available_at=NOW + SECOND)
    async with database.write() as session:
        assert await stage(session, now=NOW) == 1
        assert await stage(session, now=NOW) == 0
    row = await run_row(database, due)
    assert (row.state, row.available_at, row.seq, row.attempt, row.error) == ("queued", None, 5, 1, {"type": "X"})
    assert (await run_row(database, later)).state == "waiting"


async def test_the_same_waiting_runs_are_staged_once_by_many(database: Database) -> None:
    await put_queued(database, 300, state="waiting", available_at=NOW)

    async def work(session: Any) -> int:
        return await stage(session, now=NOW)

    assert sum(await asyncio.gather(*(database.retry_write(work) for _ in range(6)))) == 300
    assert await states(database) == {"queued": 300}


async def test_what_is_on_the_way_is_counted_by_who_sent_it(database: Database) -> None:
    await put_queued(database, 7)
    await dispatch_from(database, room=3, worker="a")
    sent = await dispatch_from(database, room=4, worker="b")
    await take_all(database, sent.runs[:1], worker="c")
    async with database.read() as session:
        assert await count_on_the_way(session, worker="a") == 3
        assert await count_on_the_way(session, worker="b") == 3
        assert await count_on_the_way(session, worker="c") == 0


async def test_only_what_was_sent_with_this_number_and_is_not_begun_is_returned(database: Database) -> None:
    await put_queued(database, 3)
    first, second, third = (await dispatch_from(database)).runs
    await take_all(database, [first])
    async with database.write() as session:
        old = [first, Dispatched(second.id, second.seq - 1), third, Dispatched(new_id(), 1)]
        assert await return_unbegun(session, dispatched=old) == 1
        assert await return_unbegun(session, dispatched=[]) == 0
    assert [(await run_row(database, each.id)).state for each in (first, second, third)] == [
        "running",
        "dispatched",
        "queued",
    ]


async def test_a_worker_that_leaves_returns_what_it_sent_and_nobody_elses(database: Database) -> None:
    await put_queued(database, 6)
    mine = (await dispatch_from(database, room=3, worker="a")).runs
    others = (await dispatch_from(database, room=3, worker="b")).runs
    await take_all(database, mine[:1], worker="b")
    async with database.write() as session:
        assert await return_everything_of(session, worker="a") == 2
    assert await states(database) == {"running": 1, "dispatched": 3, "queued": 2}
    assert await take_all(database, mine) == []  # the message comes all the same, and is nobody's
    assert len(await take_all(database, others)) == 3


# -- runs of one schedule, one after the other ---------------------------------------------------------------


async def release(database: Database) -> int:
    return await database.retry_write(release_blocked)


async def test_blocked_runs_go_one_by_one_in_the_order_of_their_times(database: Database) -> None:
    one_schedule, other = new_id(), new_id()
    running = await put(database, state="running", worker="w", started_at=NOW, schedule_id=one_schedule)
    third, first, second = [
        await put(database, state="blocked", schedule_id=one_schedule, scheduled_for=NOW + number * SECOND)
        for number in (3, 1, 2)
    ]
    by_hand = await put(database, state="blocked", schedule_id=one_schedule)  # no time of its own: the last
    free = await put(database, state="blocked", schedule_id=other, scheduled_for=NOW)
    assert await release(database) == 1
    assert (await run_row(database, free)).state == "queued"
    assert await release(database) == 0
    await set_(database, Run, running, state="succeeded")
    for expected in (first, second, third, by_hand):
        assert await release(database) == 1
        assert (await run_row(database, expected)).state == "queued"
        for state in ("waiting", "queued", "quarantined", "dispatched", "running"):
            await set_(database, Run, expected, state=state)
            assert await release(database) == 0, f"an earlier one is {state}"
        await set_(database, Run, expected, state="failed")
    assert await release(database) == 0


async def test_two_that_release_at_once_let_one_go(database: Database) -> None:
    """The second finds the first's run queued, whatever it had read before: never two of a schedule."""
    schedule = new_id()
    await put_queued(database, 60, state="blocked", schedule_id=schedule)
    gone = 0
    for _ in range(12):
        await asyncio.gather(*(release(database) for _ in range(5)))
        free = await rows(database, Run, Run.state == "queued")
        assert len(free) == 1, "two of one schedule at the same time"
        gone += 1
        await set_(database, Run, free[0].id, state="succeeded")
    assert gone == 12


@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_a_run_that_another_releases_between_two_statements_holds_the_next_back(database: Database) -> None:
    """The race itself: another dispatcher's commit falls between our statements (on SQLite nothing can)."""
    schedule = new_id()
    first, second = await put_queued(database, 2, state="blocked", schedule_id=schedule)

    for moment in range(1, 4):
        async with database.write() as session:
            await session.execute(update(Run.__table__).values(state="blocked"))
        async with database.write() as session:
            interrupt(session, moment, lambda: release(database))
            await release_blocked(session)
        assert (await run_row(database, first)).state == "queued"
        assert (await run_row(database, second)).state == "blocked", f"after statement {moment}"


def interrupt(session: AsyncSession, after: int, do: Callable[[], Awaitable[Any]]) -> None:
    """Have something done after so many of the session's statements."""
    execute, seen = session.execute, 0

    async def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == after + 1:
            await do()
        return await execute(*arguments, **options)

    session.execute = interrupted  # type: ignore[method-assign]


@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_neither_a_schedules_history_nor_others_backlog_costs_a_release_anything(database: Database) -> None:
    for _ in range(3):
        columns = {"queue": SCHEDULES_QUEUE, "schedule_id": new_id(), "owner_id": new_id()}
        await put_queued(database, 3000, state="succeeded", **columns)
        await put_queued(database, 2, state="blocked", **columns)
    await put_queued(database, 3000, queue=SCHEDULES_QUEUE, owner_id=new_id())
    await put_queued(database, 3000, state="waiting", available_at=NOW + 3600 * SECOND)
    async with database.write() as session:
        await session.execute(text("ANALYZE TABLE run"))
        await session.execute(text("FLUSH STATUS"))
        assert await release_blocked(session) == 3
        found = (await session.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))).all()
    assert sum(int(row[1]) for row in found) < 1000, found


async def test_deleted_meanwhile_is_no_fault(database: Database) -> None:
    await put_queued(database, 3)
    sent = (await dispatch_from(database)).runs
    async with database.write() as session:
        await session.execute(delete(Run).where(Run.id == sent[0].id))
    async with database.write() as session:
        assert len(await take(session, dispatched=sent, worker="w", now=NOW)) == 2
        assert await enqueue_many(session, [NewRun(job=JOB, trigger=RunTrigger.CRON)], now=NOW) == 1
