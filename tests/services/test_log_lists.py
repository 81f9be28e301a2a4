"""Lists of records: whatever is filtered, page after page holds what a look at each record finds, in its order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import insert

from models import LogRecord
from scheduler.database import Database
from scheduler.errors import BadCursor
from scheduler.identifiers import new_id
from scheduler.logs import read
from scheduler.logs.read import LEVELS, list_logs
from tests.factories import NOW
from tests.services.stored import statements

RUNS, USERS = [new_id() for _ in range(3)], [new_id() for _ in range(3)]
EVENTS, JOBS = ("run.succeeded", "run.failed", "security.signed_in"), ("cleanup", "run_schedule")
REQUESTS = ("one", "two")
TEXTS = ("plain", "50%_off", 'a "quote"', "back\\slash", "Änderung ÖSTLICH", "two\nlines", "100/5", "ΑΘΗΝΑ", "naïve")
SECOND = timedelta(seconds=1)


def record(**fields: Any) -> dict[str, Any]:
    return {
        "id": new_id(),
        "at": NOW,
        "level": "info",
        "event": "something.happened",
        "logger": "test",
        "request_id": None,
        "run_id": None,
        "job": None,
        "user_id": None,
        "data": {},
    } | fields


async def add(database: Database, *records: dict[str, Any]) -> None:
    async with database.write() as session:
        await session.execute(insert(LogRecord.__table__), list(records))


@pytest.fixture
async def history(database: Database) -> list[dict[str, Any]]:
    """Many records, several in some instants, newest first."""
    choose = random.Random(7)
    made = []
    at = NOW
    for _ in range(400):
        at += choose.choice((timedelta(0), timedelta(0), timedelta(microseconds=1), SECOND))
        made.append(
            record(
                at=at,
                level=choose.choice(LEVELS),
                event=choose.choice(EVENTS),
                job=choose.choice((None, *JOBS)),
                run_id=choose.choice((None, *RUNS)),
                user_id=choose.choice((None, *USERS)),
                request_id=choose.choice((None, *REQUESTS)),
                data={"text": choose.choice(TEXTS), "n": choose.randrange(5)},
            )
        )
    await add(database, *made)
    return sorted(made, key=lambda each: (each["at"], each["id"]), reverse=True)


def expected(
    history: Sequence[dict[str, Any]],
    *,
    level: str = "debug",
    events: Sequence[str] = EVENTS,
    jobs: Sequence[str] | None = None,
    run_id: UUID | None = None,
    request_id: str | None = None,
    user_id: UUID | None = None,
    since: datetime = NOW - SECOND,
    until: datetime = NOW + timedelta(days=1),
    q: str = "",
) -> list[UUID]:
    return [
        each["id"]
        for each in history
        if LEVELS.index(each["level"]) >= LEVELS.index(level)
        and each["event"] in events
        and (jobs is None or each["job"] in jobs)
        and (run_id is None or each["run_id"] == run_id)
        and (request_id is None or each["request_id"] == request_id)
        and (user_id is None or each["user_id"] == user_id)
        and since <= each["at"] < until
        and (q.lower() in each["event"].lower() or q.lower() in orjson.dumps(each["data"]).decode().lower())
    ]


async def walk(database: Database, *, limit: int, **filters: Any) -> list[UUID]:
    """The ids of all pages."""
    found: list[UUID] = []
    cursor = None
    for _ in range(1000):
        async with database.read() as session:
            page = await list_logs(session, limit=limit, cursor=cursor, **filters)
        assert len(page.items) <= limit
        found += [row.id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the pages have no end")


FILTERS: list[dict[str, Any]] = [
    {},
    *({"level": level} for level in LEVELS),
    {"events": ["run.failed"]},
    {"events": EVENTS[:2]},
    {"events": ["run.failed", "run.failed"]},
    {"jobs": ["cleanup"]},
    {"jobs": JOBS},
    {"run_id": RUNS[0]},
    {"request_id": "one"},
    {"user_id": USERS[0]},
    {"since": NOW + 10 * SECOND},
    {"until": NOW + 40 * SECOND},
    {"since": NOW + 10 * SECOND, "until": NOW + 60 * SECOND, "level": "warning"},
    {"level": "warning", "jobs": ["cleanup"]},
    {"level": "info", "jobs": ["cleanup"], "events": ["run.failed"]},
    {"run_id": RUNS[1], "level": "warning", "since": NOW + 10 * SECOND},
    {"run_id": RUNS[1], "request_id": "two"},
    {"request_id": "two", "user_id": USERS[1], "until": NOW + 70 * SECOND},
    {"q": "plain"},
    {"q": "SUCCEEDED", "level": "error"},
    {"run_id": RUNS[2], "q": "plain", "level": "info"},
]


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("looked_at", [read.LOOKED_AT, 40])
async def test_every_filter(
    database: Database, history: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(read, "LOOKED_AT", looked_at)
    order = {each["id"]: place for place, each in enumerate(history)}
    for filters in FILTERS:
        wanted = expected(history, **filters)
        if "run_id" in filters or "request_id" in filters:
            # By the order of their ids, which is that of time too, but within one instant of two processes.
            wanted.sort(reverse=True)
        else:
            assert wanted == sorted(wanted, key=order.__getitem__)
        assert await walk(database, limit=7, **filters) == wanted, filters
        assert await walk(database, limit=200, **filters) == wanted, filters


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize(
    "text", [*TEXTS, "PLAIN", "änderung", "östlich", "αθηνα", '"n":3', "%", "_", "off", "NAÏVE", "nothing"]
)
async def test_text_is_found_as_it_is_in_any_case(database: Database, history: list[dict[str, Any]], text: str) -> None:
    wanted = {
        each["id"]
        for each in history
        if text.lower() in each["data"]["text"].lower()
        or text.lower() in each["event"]
        or text in orjson.dumps(each["data"]).decode()
    }
    assert set(await walk(database, limit=100, q=text)) == wanted
    assert bool(wanted) is (text != "nothing")


async def test_a_page_looks_no_further_than_it_may(
    database: Database, history: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "LOOKED_AT", 100)
    async with database.read() as session:
        page = await list_logs(session, q="is nowhere", limit=50)
        assert list(page.items) == [] and page.next_cursor is not None
        first = await list_logs(session, q="plain", limit=200)
    newest = [each["id"] for each in history[:110]]
    assert {row.id for row in first.items} <= set(newest)
    assert await walk(database, q="is nowhere", limit=50) == []


async def test_totals(database: Database, history: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for filters in FILTERS:
        async with database.read() as session:
            page = await list_logs(session, limit=5, count=True, **filters)
            assert page.total == len(expected(history, **filters)), filters
            if page.next_cursor:
                second = await list_logs(session, limit=5, count=True, cursor=page.next_cursor, **filters)
                assert second.total == page.total
    monkeypatch.setattr(read, "LOOKED_AT", 100)
    async with database.read() as session:
        page = await list_logs(session, limit=5, count=True)
        assert page.total is not None and 100 <= page.total < 110  # all of the last instant


async def test_what_comes_meanwhile_is_in_no_later_page(database: Database, history: list[dict[str, Any]]) -> None:
    async with database.read() as session:
        page = await list_logs(session, limit=10)
    await add(database, record(at=history[0]["at"] + SECOND), record(at=history[0]["at"]))
    async with database.read() as session:
        second = await list_logs(session, limit=10, cursor=page.next_cursor)
    assert [row.id for row in second.items] == [each["id"] for each in history[10:20]]


async def test_rows_are_whole(database: Database) -> None:
    one = record(run_id=RUNS[0], user_id=USERS[0], request_id="r", job="cleanup", data={"a": [1, None]})
    await add(database, one)
    for filters in ({}, {"level": "info"}, {"run_id": RUNS[0]}):
        async with database.read() as session:
            (row,) = (await list_logs(session, limit=5, **filters)).items
        assert row._asdict() == one


async def test_what_is_not_understood(database: Database) -> None:
    async with database.read() as session:
        with pytest.raises(BadCursor):
            await list_logs(session, limit=5, cursor="nonsense")
        with pytest.raises(ValueError, match="not in tuple"):
            await list_logs(session, limit=5, level="loud")


async def test_the_number_of_statements_is_fixed(database: Database, history: list[dict[str, Any]]) -> None:
    given: list[tuple[dict[str, Any], int]] = [({}, 1), ({"level": "warning"}, 1), ({"level": "warning", "q": "x"}, 2)]
    for filters, number in given:
        for limit in (1, 200):
            with statements(database) as seen:
                async with database.read() as session:
                    await list_logs(session, limit=limit, **filters)
            assert len([each for each in seen if each.startswith("SELECT")]) == number
