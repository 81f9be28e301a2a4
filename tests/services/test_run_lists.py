"""Lists of runs: right by every filter, a page at a time, and no longer to read when history is long."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, insert, text

from models import Run, RunAttempt
from models.run import RunState
from scheduler.database import Database
from scheduler.errors import BadCursor, NotFound
from scheduler.identifiers import new_id
from scheduler.runs.read import get_run, last_runs, list_attempts, list_runs
from tests.factories import NOW, add_rows, run_row

OWNERS = [new_id(), new_id(), None, None]
SCHEDULES = [new_id(), None, None]
JOBS = ["cleanup", "run_schedule", "reap"]
ALL_STATES = [state.value for state in RunState]
TRIGGERS = ["cron", "manual", "event", "retry"]


def history(count: int) -> list[dict[str, Any]]:
    """Runs of every kind, several queued at the same instant, ids in no order."""
    chance = random.Random(7)
    rows = []
    for number in range(count):
        schedule_id = chance.choice(SCHEDULES)
        rows.append(
            run_row(
                NOW - timedelta(seconds=number // 3),
                id=UUID(int=chance.getrandbits(128)),
                job=chance.choice(JOBS),
                trigger=chance.choice(TRIGGERS),
                state=chance.choice(ALL_STATES),
                owner_id=chance.choice(OWNERS),
                schedule_id=schedule_id,
                scheduled_for=NOW + timedelta(seconds=number) if schedule_id else None,
            )
        )
    chance.shuffle(rows)
    return rows


FILTERS: list[dict[str, Any]] = [
    {},
    {"jobs": ["reap"]},
    {"jobs": ["reap", "cleanup", "reap", "no_such_job"]},
    {"states": ["failed"]},
    {"states": ["queued"]},
    {"states": ["queued", "running", "lost"]},
    {"states": ["succeeded"], "jobs": ["reap"]},
    {"states": ["failed", "succeeded"], "triggers": ["manual", "event"]},
    {"triggers": ["manual"]},
    {"triggers": ["cron", "retry"], "jobs": ["cleanup", "reap"]},
    {"owner_id": OWNERS[0]},
    {"owner_id": OWNERS[1], "states": ["queued"], "jobs": ["reap", "cleanup"]},
    {"schedule_id": SCHEDULES[0]},
    {"schedule_id": SCHEDULES[0], "states": ["failed", "lost"]},
    {"since": NOW - timedelta(seconds=50)},
    {"until": NOW - timedelta(seconds=50), "jobs": ["reap"]},
    {"since": NOW - timedelta(seconds=70), "until": NOW - timedelta(seconds=20), "states": ["queued"]},
]


def chosen(rows: list[dict[str, Any]], wanted: dict[str, Any]) -> list[UUID]:
    """What the list must hold, in order."""
    shown = {"waiting": "queued", "blocked": "queued", "quarantined": "queued", "dispatched": "queued"}
    fitting = [
        row
        for row in rows
        if row["job"] in wanted.get("jobs", JOBS)
        and row["trigger"] in wanted.get("triggers", TRIGGERS)
        and ("states" not in wanted or shown.get(row["state"], row["state"]) in wanted["states"])
        and ("owner_id" not in wanted or row["owner_id"] == wanted["owner_id"])
        and ("schedule_id" not in wanted or row["schedule_id"] == wanted["schedule_id"])
        and row["queued_at"] >= wanted.get("since", row["queued_at"])
        and row["queued_at"] < wanted.get("until", NOW + timedelta(days=1))
    ]
    return [row["id"] for row in sorted(fitting, key=lambda row: (row["queued_at"], row["id"]), reverse=True)]


@pytest.mark.heavy(on="mariadb")
async def test_every_filter_and_its_pages(database: Database) -> None:
    rows = history(400)
    await add_rows(database, Run, rows)
    for wanted in FILTERS:
        expected = chosen(rows, wanted)
        assert expected, wanted
        found: list[UUID] = []
        cursor = None
        async with database.read() as session:
            while True:
                page = await list_runs(session, **wanted, limit=23, cursor=cursor, count=True)
                assert page.total == len(expected), wanted
                assert all(row.queue == "default" for row in page.items)
                found += [row.id for row in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    break
                assert len(page.items) == 23
        assert found == expected, wanted


async def test_a_run_that_comes_meanwhile_neither_repeats_nor_hides_another(database: Database) -> None:
    await add_rows(database, Run, [run_row(NOW - timedelta(seconds=number)) for number in range(4)])
    async with database.read() as session:
        first = await list_runs(session, states=["queued", "succeeded"], limit=2)
    await add_rows(database, Run, [run_row(NOW + timedelta(seconds=1)), run_row(NOW)])
    async with database.read() as session:
        second = await list_runs(session, states=["queued", "succeeded"], limit=2, cursor=first.next_cursor)
        everything = await list_runs(session, limit=10)
        with pytest.raises(BadCursor):
            await list_runs(session, limit=2, cursor="e30")
    assert [row.id for row in (*first.items, *second.items)] == [
        row.id for row in everything.items if row.id not in {everything.items[0].id, _added(everything, first)}
    ]


def _added(everything: Any, first: Any) -> UUID:
    """Of the two queued at NOW, the one that the first page did not show."""
    (other,) = {row.id for row in everything.items if row.queued_at == NOW} - {row.id for row in first.items}
    return UUID(str(other))


async def _rows_read(database: Database, wanted: dict[str, Any], cursor: str | None) -> int:
    """How many rows and index entries MariaDB looks at for a page of 20."""
    counters = text("SHOW SESSION STATUS LIKE 'Handler_read%'")
    async with database.read() as session:
        before = sum(int(row[1]) for row in await session.execute(counters))
        await list_runs(session, **wanted, limit=20, cursor=cursor)
        return sum(int(row[1]) for row in await session.execute(counters)) - before


@pytest.mark.heavy(on="mariadb")
async def test_a_page_of_any_single_filter_looks_at_little_more_than_its_rows(database: Database) -> None:
    """However long history is: the first page, and one from the middle."""
    if not database.is_mysql:
        return await _check_plans_of_sqlite(database)
    await add_rows(database, Run, history(6000))
    async with database.write() as session:
        await session.execute(text("ANALYZE TABLE run"))
    for wanted in FILTERS:
        if len(set(wanted) - {"since", "until"}) > 1:
            continue  # of several filters one is walked, the others checked
        async with database.read() as session:
            first = await list_runs(session, **wanted, limit=200)
        ends = max(len(wanted.get("states", ())), len(wanted.get("jobs", ())), 1) + 4 * ("queued" in str(wanted))
        for cursor in (None, first.next_cursor):
            looked_at = await _rows_read(database, wanted, cursor)
            assert looked_at <= 120 * ends, (wanted, looked_at)


async def _check_plans_of_sqlite(database: Database) -> None:
    for wanted in FILTERS:
        seen: list[tuple[str, Any]] = []

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any, seen: Any = seen) -> None:
            seen.append((statement, parameters))

        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        async with database.read() as session:
            await list_runs(session, **wanted, limit=20)
            event.remove(database.engine.sync_engine, "before_cursor_execute", note)
            statement, parameters = seen[-1]
            connection = await session.connection()
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [str(row[3]) for row in plan]
        reads = [step for step in steps if " run" in step]
        assert reads and all("USING INDEX ix_run_" in step or "autoindex_run_1" in step for step in reads), steps
        # The few rows of several ends are sorted; no run that is not on the page is.
        assert len(reads) > 1 or not any("TEMP B-TREE FOR ORDER BY" in step for step in steps), steps


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("looked_at", [1, 10, 100])
async def test_what_is_rare_is_found_a_stretch_at_a_time(database: Database, looked_at: int) -> None:
    """Several filters: a page looks at so many runs at the most, and the next goes on where it ended."""
    table = history(120)
    await add_rows(database, Run, table)
    for wanted in FILTERS:
        found: list[UUID] = []
        cursor = None
        pages = 0
        async with database.read() as session:
            while pages == 0 or cursor is not None:
                page = await list_runs(session, **wanted, limit=20, cursor=cursor, looked_at=looked_at)
                found += [row.id for row in page.items]
                cursor = page.next_cursor
                pages += 1
        assert found == chosen(table, wanted), wanted
        if len(set(wanted) - {"since", "until"}) > 1:
            assert pages > 1 or looked_at == 100, wanted


async def test_last_runs_in_one_statement(database: Database) -> None:
    rows = [run_row(NOW - timedelta(seconds=number), job=job) for number in range(3) for job in JOBS]
    await add_rows(database, Run, rows)
    async with database.read() as session:
        found = await last_runs(session, jobs=[*JOBS, "never_ran"])
        assert await last_runs(session, jobs=[]) == {}
    assert {job: row.id for job, row in found.items()} == {row["job"]: row["id"] for row in rows[:3]}


async def test_attempts(database: Database) -> None:
    error = {"type": "E", "message": "m", "traceback": "t"}
    run = run_row(attempt=2, seq=2, state="running", error=error, started_at=NOW, finished_at=None)
    await add_rows(database, Run, [run])
    async with database.write() as session:
        await session.execute(
            insert(RunAttempt),
            [
                {
                    "run_id": run["id"],
                    "seq": 1,
                    "number": 1,
                    "state": "failed",
                    "worker": "other",
                    "started_at": NOW - timedelta(seconds=9),
                    "finished_at": NOW - timedelta(seconds=8),
                    "error": error,
                }
            ],
        )
    async with database.read() as session:
        row = await get_run(session, run_id=run["id"])
        first, second = await list_attempts(session, run=row)
        assert (first.number, first.state, first.error, first.worker) == (1, "failed", error, "other")
        assert (second.number, second.state, second.error, second.finished_at) == (2, "running", None, None)
        with pytest.raises(NotFound):
            await get_run(session, run_id=run["id"], owner_id=new_id())
        with pytest.raises(NotFound):
            await get_run(session, run_id=new_id())


async def test_a_run_that_is_not_at_work_has_no_attempt_under_way(database: Database) -> None:
    """Handed back, never begun, waiting for its next try, or cancelled while it waited."""
    tried: dict[str, Any] = {"started_at": NOW, "attempt": 1}
    never: dict[str, Any] = {"started_at": None, "attempt": 0, "worker": None, "finished_at": None}
    cases = [
        (run_row(state="queued", **never), []),
        (run_row(state="cancelled", **never), []),
        (run_row(state="skipped", **never), []),
        (run_row(state="waiting", seq=2, finished_at=None, **tried), ["failed"]),
        (run_row(state="cancelled", seq=3, **tried), ["failed"]),
        (run_row(state="succeeded", **tried), ["succeeded"]),
        (run_row(state="lost", **tried), ["lost"]),
    ]
    await add_rows(database, Run, [run for run, _ in cases])
    ended = [
        {
            "run_id": run["id"],
            "seq": 1,
            "number": 1,
            "state": "failed",
            "worker": "w",
            "started_at": NOW,
            "finished_at": NOW,
            "error": None,
        }
        for run, states in cases
        if states == ["failed"]
    ]
    await add_rows(database, RunAttempt, ended)
    async with database.read() as session:
        for run, states in cases:
            attempts = await list_attempts(session, run=await get_run(session, run_id=run["id"]))
            assert [attempt.state for attempt in attempts] == states, run["state"]
