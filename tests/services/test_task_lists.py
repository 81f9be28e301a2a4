"""Lists of tasks: mine, in order, in pages that neither repeat nor hide, at a fixed cost."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import product
from typing import Any

import orjson
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task, TaskAssignee, TaskShare
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.deliveries.read import list_deliveries
from scheduler.errors import BadCursor, Forbidden
from scheduler.logs.read import list_logs
from scheduler.paging import Page
from scheduler.reminders.manage import list_reminders
from scheduler.runs.read import list_runs
from scheduler.tasks.read import TaskDetails, list_tasks
from tests.factories import NOW, People, add_reminder, add_rows, add_task, assignee_row, share_row, task_row
from tests.services.stored import set_, statements


async def page(database: Database, actor: Actor, **options: Any) -> Page[TaskDetails]:
    async with database.read() as session:
        return await list_tasks(session, actor=actor, **{"limit": 50} | options)


async def titles(database: Database, actor: Actor, **options: Any) -> list[str]:
    """The titles of all pages, one after the other."""
    found: list[str] = []
    cursor = None
    while True:
        answer = await page(database, actor, cursor=cursor, **options)
        found += [task.row.title for task in answer.items]
        cursor = answer.next_cursor
        if cursor is None:
            return found
        assert len(answer.items) == options.get("limit", 50)


async def test_mine_is_what_i_made_and_what_i_am_to_do(database: Database, people: People) -> None:
    await add_task(database, people.alice, title="hers")
    await add_task(database, people.alice, title="both", assignees=[people.alice, people.bob])
    await add_task(database, people.bob, title="his")
    await add_task(database, people.dora, title="doras", assignees=[people.bob, people.carol])
    await add_task(database, people.alice, title="binned", deleted_at=NOW)
    await add_task(database, people.alice, title="done", status="completed", completed_at=NOW)
    assert sorted(await titles(database, people.alice)) == ["both", "done", "hers"]
    assert sorted(await titles(database, people.bob)) == ["both", "doras", "his"]
    assert sorted(await titles(database, people.carol)) == ["doras"]
    assert sorted(await titles(database, people.dora)) == ["doras"]
    assert sorted(await titles(database, people.dora, everybodys=True)) == [
        "both",
        "done",
        "doras",
        "hers",
        "his",
    ]
    assert len(await titles(database, people.eve, everybodys=True)) == 5
    assert await titles(database, people.eve) == []
    assert await titles(database, people.alice, statuses=["completed"]) == ["done"]
    assert sorted(await titles(database, people.alice, statuses=["todo", "completed"])) == [
        "both",
        "done",
        "hers",
    ]
    for nosy in (people.alice, people.bob):
        with pytest.raises(Forbidden):
            await page(database, nosy, everybodys=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
async def test_soonest_first_none_last_and_ties_by_age(database: Database, people: People, limit: int) -> None:
    hour = timedelta(hours=1)
    for title, due_at in (
        ("none 1", None),
        ("2 a", NOW + 2 * hour),
        ("1", NOW + hour),
        ("2 b", NOW + 2 * hour),
        ("none 2", None),
        ("2 c", NOW + 2 * hour),
        ("0", NOW - hour),
        ("2 later", NOW + 2 * hour + timedelta(microseconds=1)),
    ):
        await add_task(database, people.alice, title=title, due_at=due_at)
    expected = ["0", "1", "2 a", "2 b", "2 c", "2 later", "none 1", "none 2"]
    assert await titles(database, people.alice, limit=limit) == expected


async def test_no_empty_last_page(database: Database, people: People) -> None:
    for number in range(4):
        await add_task(database, people.alice, title=str(number))
    first = await page(database, people.alice, limit=2)
    second = await page(database, people.alice, limit=2, cursor=first.next_cursor)
    assert (len(second.items), second.next_cursor) == (2, None)


async def test_rows_that_change_meanwhile_neither_repeat_nor_hide_others(database: Database, people: People) -> None:
    tasks = [
        await add_task(database, people.alice, title=f"{number}", due_at=NOW + timedelta(hours=number))
        for number in range(8)
    ]
    first = await page(database, people.alice, limit=4)
    await add_task(database, people.alice, title="early", due_at=NOW - timedelta(hours=1))
    await add_task(database, people.alice, title="tie", due_at=NOW + timedelta(hours=3))
    await set_(database, Task, tasks[3], deleted_at=NOW)  # the row that the cursor names
    await set_(database, Task, tasks[0], status="completed")
    rest = await page(database, people.alice, limit=50, cursor=first.next_cursor)
    assert [task.row.title for task in rest.items] == ["tie", "4", "5", "6", "7"]


async def test_total(database: Database, people: People) -> None:
    for number in range(5):
        await add_task(database, people.alice, title=str(number), assignees=[people.bob, people.carol])
    first = await page(database, people.alice, limit=2, count=True)
    assert first.total == 5
    assert (await page(database, people.alice, limit=2, count=True, cursor=first.next_cursor)).total == 5
    assert (await page(database, people.alice, limit=2)).total is None


async def test_a_page_costs_the_same_whatever_its_length(database: Database, people: People) -> None:
    costs = {}
    for wanted in (1, 10, 100):
        for _ in range(wanted if wanted == 1 else wanted * 9 // 10):
            task_id = await add_task(
                database, people.alice, assignees=[people.alice, people.bob, people.carol], due_at=NOW
            )
            await add_reminder(database, task_id, people.alice, NOW)
        with statements(database) as seen:
            answer = await page(database, people.alice, limit=200)
        assert len(answer.items) == wanted
        assert all(len(task.assignees) == 3 and len(task.reminders) == 1 for task in answer.items)
        costs[wanted] = len([each for each in seen if each.startswith("SELECT")])
    assert set(costs.values()) == {3}


async def test_mine_are_found_without_a_look_at_everybodys(database: Database, people: People) -> None:
    many = [task_row(people.dora.user_id, due_at=NOW + timedelta(minutes=number)) for number in range(3000)]
    await add_rows(database, Task, many)
    await add_rows(database, TaskAssignee, [assignee_row(row["id"], people.carol.user_id) for row in many])
    await add_rows(database, TaskShare, [share_row(row["id"], people.carol.user_id, "view") for row in many])
    await add_task(database, people.bob, due_at=NOW)
    await add_task(database, people.alice, due_at=NOW, assignees=[people.bob])
    await add_task(database, people.alice, due_at=NOW, shared_with=[(people.bob, "view")])
    if database.is_mysql:
        async with database.write() as session:
            await session.execute(text("ANALYZE TABLE task, task_assignee, task_share, user"))
            counters = text("SHOW SESSION STATUS LIKE 'Handler_read%'")
            before = sum(int(row[1]) for row in await session.execute(counters))
            assert len((await list_tasks(session, actor=people.bob, limit=50)).items) == 3
            assert sum(int(row[1]) for row in await session.execute(counters)) - before < 150
        return
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((f"EXPLAIN QUERY PLAN {statement}", parameters))

    async with database.read() as session:
        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        assert len((await list_tasks(session, actor=people.bob, limit=50)).items) == 3
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        connection = await session.connection()
        steps = [str(row[3]) for explain in seen for row in await connection.exec_driver_sql(*explain)]
    assert any(step.startswith("SEARCH task ") for step in steps), steps
    assert not any(step.startswith(("SCAN task", "SCAN user")) for step in steps), steps


# -- cursors that nobody was given ---------------------------------------------------------------------------


def cursor_of(*values: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


INSTANT, ID = NOW.isoformat(), "019ca000-0000-7000-8000-000000000000"
MADE_UP = [
    cursor_of(),
    cursor_of(None),
    cursor_of(5),
    cursor_of("x"),
    cursor_of([]),
    cursor_of(None, None),
    cursor_of(None, 5),
    cursor_of(INSTANT, None),
    cursor_of(5, ID),
    cursor_of("0001-01-01T00:00:00+14:00", ID),
    cursor_of("9999-12-31T23:59:59-14:00", ID),
    cursor_of(None, None, None),
    cursor_of(0, None, None),
    cursor_of(0, INSTANT, None),
    cursor_of(1, INSTANT, None),
    cursor_of(1, "0001-01-01T00:00:00+14:00", ID),
    cursor_of(2, INSTANT, {}),
    "x",
]


async def test_a_made_up_cursor_is_a_bad_cursor_in_every_list(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, due_at=NOW)
    lists: dict[str, Callable[[AsyncSession, str], Awaitable[Any]]] = {
        "tasks": lambda session, cursor: list_tasks(session, actor=people.alice, limit=5, cursor=cursor),
        "reminders": lambda session, cursor: list_reminders(
            session, actor=people.alice, task_id=task_id, limit=5, cursor=cursor
        ),
        "deliveries": lambda session, cursor: list_deliveries(
            session, actor=people.alice, now=NOW, limit=5, cursor=cursor
        ),
        "runs": lambda session, cursor: list_runs(session, limit=5, cursor=cursor),
        "logs": lambda session, cursor: list_logs(session, limit=5, cursor=cursor),
    }
    taken = []
    for (name, read), cursor in product(lists.items(), MADE_UP):
        async with database.read() as session:
            try:
                await read(session, cursor)
            except BadCursor:
                continue
            except Exception as error:
                taken.append((name, cursor, type(error).__name__))
            else:
                taken.append((name, cursor, "taken"))
    assert taken == []
