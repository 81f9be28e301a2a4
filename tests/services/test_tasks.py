"""Tasks: what is created is read, a change raises the version by one, who may not see one finds none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from models import Activity, Task, TaskAssignee, User
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from scheduler.identifiers import new_id
from scheduler.tasks.assign import MOST_ASSIGNEES
from scheduler.tasks.change import change_task, delete_task, restore_task
from scheduler.tasks.create import create_task
from scheduler.tasks.read import TaskDetails, get_task
from tests.factories import NOW, People, add_person, add_task, before
from tests.services.stored import count, one, rows, set_, version

LATER = NOW + timedelta(minutes=5)


async def create(database: Database, actor: Actor, **values: Any) -> UUID:
    async with database.write() as session:
        return await create_task(session, actor=actor, values={"title": "Water the plants"} | values, now=NOW)


async def read(database: Database, actor: Actor, task_id: UUID) -> TaskDetails:
    async with database.read() as session:
        return await get_task(session, actor=actor, task_id=task_id)


async def change(
    database: Database,
    actor: Actor,
    task_id: UUID,
    *,
    if_version: int | None = None,
    now: datetime = LATER,
    **changes: Any,
) -> None:
    async with database.write() as session:
        await change_task(session, actor=actor, task_id=task_id, changes=changes, now=now, if_version=if_version)


async def delete(database: Database, actor: Actor, task_id: UUID, if_version: int | None = None) -> None:
    async with database.write() as session:
        await delete_task(session, actor=actor, task_id=task_id, now=LATER, if_version=if_version)


async def restore(database: Database, actor: Actor, task_id: UUID) -> None:
    async with database.write() as session:
        await restore_task(session, actor=actor, task_id=task_id, now=LATER)


# -- create --------------------------------------------------------------------------------------------------


async def test_only_a_title_is_needed(database: Database, people: People) -> None:
    alice = people.alice.__class__(people.alice.user_id, people.alice.role, timezone="Asia/Tokyo")
    task = await read(database, alice, await create(database, alice, title="🪴 שלום"))
    columns = dict(task.row._mapping)
    columns.pop("id")
    assert columns == {
        "creator_id": alice.user_id,
        "creator_name": "Alice",
        "title": "🪴 שלום",
        "description": "",
        "status": "todo",
        "priority": 2,
        "category": None,
        "due_at": None,
        "all_day": False,
        "timezone": "Asia/Tokyo",
        "completed_at": None,
        "created_at": NOW,
        "updated_at": NOW,
        "deleted_at": None,
        "version": 1,
    }
    assert (task.assignees, task.reminders) == ([], [])


async def test_everything_that_can_be_given(database: Database, people: People) -> None:
    due_at = datetime(2026, 3, 10, 15, 30, 0, 123456, tzinfo=UTC)
    task_id = await create(
        database,
        people.alice,
        description="é" * 20_000,
        status="in_progress",
        priority="urgent",
        category="Home",
        due_at=due_at,
        timezone="Europe/Berlin",
        assignee_ids=[people.dora.user_id, people.bob.user_id],
        reminders=[before(30), before(0), before(60, audience="me")],
    )
    task = await read(database, people.bob, task_id)
    assert (len(task.row.description), task.row.status, task.row.priority) == (20_000, "in_progress", 4)
    assert task.row.due_at == due_at
    assert [each.name for each in task.assignees] == ["Bob", "Dora"]
    assert [each.offset_minutes for each in task.reminders] == [30, 0]  # private ones are not the task's


async def test_created_completed(database: Database, people: People) -> None:
    task = await read(database, people.alice, await create(database, people.alice, status="completed"))
    assert task.row.completed_at == NOW


async def test_an_all_day_task_is_due_at_the_start_of_its_local_date(database: Database, people: People) -> None:
    task_id = await create(
        database,
        people.alice,
        due_at=datetime(2026, 3, 8, 3, 0, tzinfo=UTC),
        all_day=True,
        timezone="America/New_York",
    )
    assert (await one(database, Task)).due_at == datetime(2026, 3, 7, 5, 0, tzinfo=UTC)
    # Another zone: the same date on the calendar.
    await change(database, people.alice, task_id, timezone="Asia/Tokyo")
    assert (await one(database, Task)).due_at == datetime(2026, 3, 6, 15, 0, tzinfo=UTC)
    await change(database, people.alice, task_id, all_day=False)
    assert (await one(database, Task)).due_at == datetime(2026, 3, 6, 15, 0, tzinfo=UTC)
    await change(database, people.alice, task_id, due_at=datetime(2026, 3, 8, 10, tzinfo=UTC), all_day=True)
    assert (await one(database, Task)).due_at == datetime(2026, 3, 7, 15, 0, tzinfo=UTC)


# -- assignees -----------------------------------------------------------------------------------------------


async def test_assignees_are_replaced_by_a_list(database: Database, people: People) -> None:
    bob, carol = people.bob.user_id, people.carol.user_id
    task_id = await create(database, people.alice, assignee_ids=[bob, bob])
    await change(database, people.alice, task_id, assignee_ids=[carol])
    assert [row.user_id for row in await rows(database, TaskAssignee)] == [carol]
    with pytest.raises(NotFound):
        await read(database, people.bob, task_id)
    await change(database, people.alice, task_id, assignee_ids=[])
    assert await count(database, TaskAssignee) == 0
    assert await version(database, task_id) == 3


async def test_who_cannot_be_assigned_is_pointed_at(database: Database, people: People) -> None:
    gone = await add_person(database, "gone", status="deactivated")
    wanted = [people.bob.user_id, new_id(), gone.user_id]
    with pytest.raises(Invalid) as caught:
        await create(database, people.alice, assignee_ids=wanted)
    assert [error.field for error in caught.value.errors] == ["/assignee_ids/1", "/assignee_ids/2"]
    assert await count(database, Task) == 0
    task_id = await create(database, people.alice, assignee_ids=wanted[:1])
    with pytest.raises(Invalid):
        await change(database, people.alice, task_id, assignee_ids=wanted, title="New")
    assert [row.user_id for row in await rows(database, TaskAssignee)] == wanted[:1]
    assert (await one(database, Task)).title == "Water the plants"


async def test_there_is_a_most_of_assignees(database: Database, people: People) -> None:
    with pytest.raises(Invalid) as caught:
        await create(database, people.alice, assignee_ids=[new_id() for _ in range(MOST_ASSIGNEES + 1)])
    assert [(error.field, error.code) for error in caught.value.errors] == [("/assignee_ids", "too_long")]


async def test_who_is_assigned_and_then_deactivated_does_not_block_a_change(database: Database, people: People) -> None:
    """The list that the client read is the list that it sends back, with one more."""
    task_id = await create(database, people.alice, assignee_ids=[people.bob.user_id])
    await set_(database, User, people.bob.user_id, status="deactivated")
    await change(database, people.alice, task_id, assignee_ids=[people.bob.user_id, people.carol.user_id])
    assert await count(database, TaskAssignee) == 2


# -- change --------------------------------------------------------------------------------------------------


async def test_a_change_raises_the_version_by_one_whatever_it_holds(database: Database, people: People) -> None:
    task_id = await create(database, people.alice)
    await change(
        database,
        people.alice,
        task_id,
        title="New",
        priority="low",
        due_at=NOW + timedelta(days=1),
        category="Work",
        assignee_ids=[people.bob.user_id],
        reminders=[before(10)],
        status="in_progress",
    )
    task = await one(database, Task)
    assert (task.version, task.updated_at, task.created_at) == (2, LATER, NOW)
    assert (task.title, task.priority, task.category, task.status) == ("New", 1, "Work", "in_progress")
    await change(database, people.alice, task_id, category=None, due_at=None)
    task = await one(database, Task)
    assert (task.version, task.category, task.due_at) == (3, None, None)


async def test_what_changes_nothing_leaves_the_version(database: Database, people: People) -> None:
    due_at = NOW + timedelta(days=1)
    task_id = await create(
        database, people.alice, due_at=due_at, assignee_ids=[people.bob.user_id], reminders=[before(10)]
    )
    await change(database, people.alice, task_id)
    await change(
        database,
        people.alice,
        task_id,
        title="Water the plants",
        due_at=due_at,
        status="todo",
        priority="medium",
    )
    for again in (
        {"assignee_ids": [people.bob.user_id]},
        {"reminders": [before(10)]},
        {"assignee_ids": [people.bob.user_id, people.bob.user_id], "reminders": [before(10)]},
        {"reminders": [before(10), before(10, audience="me")]},  # a private one is not shown by the task
    ):
        await change(database, people.alice, task_id, **again)
        assert await version(database, task_id) == 1, again
    assert (await one(database, Task)).updated_at == NOW


async def test_a_list_that_is_another_raises_the_version(database: Database, people: People) -> None:
    task_id = await create(
        database,
        people.alice,
        due_at=NOW + timedelta(days=1),
        assignee_ids=[people.bob.user_id],
        reminders=[before(10)],
    )
    others: tuple[dict[str, Any], ...] = (
        {"assignee_ids": [people.carol.user_id]},
        {"reminders": [before(20)]},
        {"reminders": [before(20), before(20)]},
        {"reminders": []},
        {"assignee_ids": []},
    )
    for number, other in enumerate(others, 2):
        await change(database, people.alice, task_id, **other)
        assert await version(database, task_id) == number, other


async def test_completing_and_reopening(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, assignee_ids=[people.bob.user_id])
    await change(database, people.bob, task_id, status="completed")
    assert (await one(database, Task)).completed_at == LATER
    await change(database, people.bob, task_id, status="completed", title="Done", now=LATER + timedelta(hours=1))
    assert (await one(database, Task)).completed_at == LATER
    await change(database, people.bob, task_id, status="in_progress")
    assert (await one(database, Task)).completed_at is None


async def test_if_version(database: Database, people: People) -> None:
    task_id = await create(database, people.alice)
    await change(database, people.alice, task_id, title="First", if_version=1)
    for stale in (1, 3):
        with pytest.raises(PreconditionFailed):
            await change(database, people.alice, task_id, title="Second", if_version=stale)
        with pytest.raises(PreconditionFailed):
            await delete(database, people.alice, task_id, if_version=stale)
    task = await one(database, Task)
    assert (task.title, task.version, task.deleted_at) == ("First", 2, None)
    await delete(database, people.alice, task_id, if_version=2)
    assert await version(database, task_id) == 3


@pytest.mark.parametrize(
    ("who", "changes", "error"),
    [
        ("bob", {"title": "New"}, None),
        ("bob", {"status": "completed"}, None),
        ("bob", {"assignee_ids": []}, Forbidden),
        ("bob", {"title": "New", "assignee_ids": []}, Forbidden),
        ("carol", {"title": "New"}, NotFound),
        ("carol", {}, NotFound),
        ("dora", {"title": "New"}, Forbidden),
        ("dora", {"status": "completed"}, Forbidden),
        ("dora", {"assignee_ids": []}, None),
        ("dora", {"assignee_ids": [], "status": "completed"}, Forbidden),
        ("eve", {"title": "New", "assignee_ids": [], "status": "completed"}, None),
    ],
)
async def test_who_may_change_what(
    database: Database, people: People, who: str, changes: dict[str, Any], error: type[Exception] | None
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    actor = getattr(people, who)
    if error is None:
        await change(database, actor, task_id, **changes)
        assert await version(database, task_id) == 2
        return
    with pytest.raises(error):
        await change(database, actor, task_id, **changes)
    assert await version(database, task_id) == 1
    assert await count(database, TaskAssignee) == 1


# -- the bin -------------------------------------------------------------------------------------------------


async def test_who_sees_what(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    for actor in (people.alice, people.bob, people.dora, people.eve):
        assert (await read(database, actor, task_id)).row.id == task_id
    with pytest.raises(NotFound):
        await read(database, people.carol, task_id)
    with pytest.raises(NotFound):
        await read(database, people.alice, new_id())
    await delete(database, people.alice, task_id)
    for actor in (people.alice, people.eve):
        assert (await read(database, actor, task_id)).row.deleted_at == LATER
    for actor in (people.bob, people.carol, people.dora):
        with pytest.raises(NotFound):
            await read(database, actor, task_id)
        with pytest.raises(NotFound):
            await restore(database, actor, task_id)


@pytest.mark.parametrize(
    ("who", "error"),
    [("alice", None), ("bob", Forbidden), ("carol", NotFound), ("dora", Forbidden), ("eve", None)],
)
async def test_who_may_delete(database: Database, people: People, who: str, error: type[Exception] | None) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    if error is None:
        await delete(database, getattr(people, who), task_id)
    else:
        with pytest.raises(error):
            await delete(database, getattr(people, who), task_id)
    assert ((await one(database, Task)).deleted_at is None) == (error is not None)


async def test_into_the_bin_and_out_again(database: Database, people: People) -> None:
    task_id = await create(database, people.alice)

    async def conflict(attempt: Any) -> str:
        with pytest.raises(Conflict) as caught:
            await attempt
        return caught.value.error_code

    assert await conflict(restore(database, people.alice, task_id)) == "already_restored"
    await delete(database, people.alice, task_id)
    assert await conflict(delete(database, people.alice, task_id)) == "already_deleted"
    assert await conflict(change(database, people.alice, task_id, title="New")) == "already_deleted"
    assert await version(database, task_id) == 2
    await restore(database, people.alice, task_id)
    task = await one(database, Task)
    assert (task.version, task.deleted_at, task.title) == (3, None, "Water the plants")


async def test_what_one_does_with_a_task_is_written_down(database: Database, people: People) -> None:
    async with database.write() as session:
        task_id = await create_task(session, actor=people.alice, values={"title": "Tea"}, now=NOW)
    due = LATER + timedelta(days=1)
    await change(database, people.alice, task_id, priority="high", due_at=due)
    await change(database, people.alice, task_id, priority="high")  # nothing new
    async with database.write() as session:
        await delete_task(session, actor=people.alice, task_id=task_id, now=LATER)
    async with database.write() as session:
        await restore_task(session, actor=people.alice, task_id=task_id, now=LATER)
    found = await rows(database, Activity)
    assert {(row.actor_id, row.target_type, row.target_id) for row in found} == {
        (people.alice.user_id, "task", task_id)
    }
    changed = {"priority": ["medium", "high"], "due_at": [None, due.isoformat().replace("+00:00", "Z")]}
    assert [(row.action, row.changes) for row in found] == [
        ("task_created", {"title": [None, "Tea"]}),
        ("task_changed", changed),
        ("task_deleted", {}),
        ("task_restored", {}),
    ]
