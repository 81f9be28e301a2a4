"""Assigning a task to one person, and taking it from one: who is pointed at, what changes, and at the same time."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from models import Activity, Task, TaskAssignee, User
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from scheduler.identifiers import new_id
from scheduler.tasks import assign
from tests.factories import NOW, People, add_person, add_rows, add_task, assignee_row, user_row
from tests.services.stored import count, one, rows, version
from tests.services.test_tasks import LATER, change, read

CLIENT = Client("192.0.2.7", "a browser")


async def give(database: Database, actor: Actor, task_id: UUID, user_id: UUID, if_version: int | None = None) -> None:
    await database.retry_write(
        lambda session: assign.assign(
            session,
            actor=actor,
            task_id=task_id,
            user_id=user_id,
            now=LATER,
            client=CLIENT,
            if_version=if_version,
        )
    )


async def take(database: Database, actor: Actor, task_id: UUID, user_id: UUID, if_version: int | None = None) -> None:
    await database.retry_write(
        lambda session: assign.unassign(
            session, actor=actor, task_id=task_id, user_id=user_id, now=LATER, client=CLIENT, if_version=if_version
        )
    )


async def assignees(database: Database) -> set[UUID]:
    return {row.user_id for row in await rows(database, TaskAssignee)}


async def test_given_and_taken(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.carol])
    await give(database, people.alice, task_id, people.bob.user_id)
    task = await read(database, people.bob, task_id)
    assert [person.name for person in task.assignees] == ["Bob", "Carol"]
    assert (task.row.version, task.row.updated_at) == (2, LATER)
    await take(database, people.alice, task_id, people.bob.user_id)
    with pytest.raises(NotFound):
        await read(database, people.bob, task_id)
    assert await assignees(database) == {people.carol.user_id}
    assert await version(database, task_id) == 3
    given, taken = await rows(database, Activity)
    bob = str(people.bob.user_id)
    assert (given.action, given.changes) == ("task_assigned", {"assignee_id": [None, bob]})
    assert (taken.action, taken.changes) == ("task_unassigned", {"assignee_id": [bob, None]})
    for row in (given, taken):
        assert (row.actor_id, row.target_type, row.target_id) == (people.alice.user_id, "task", task_id)
        assert (row.at, row.ip, row.user_agent) == (LATER, *CLIENT)


async def test_who_has_it_keeps_it(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    await give(database, people.alice, task_id, people.bob.user_id)
    assert await version(database, task_id) == 1
    assert await count(database, Activity) == 0
    assert (await one(database, TaskAssignee)).assigned_at == NOW


async def test_a_list_leaves_alone_who_stays(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    await change(database, people.alice, task_id, assignee_ids=[people.dora.user_id, people.bob.user_id])
    since = {row.user_id: row.assigned_at for row in await rows(database, TaskAssignee)}
    assert since == {people.bob.user_id: NOW, people.dora.user_id: LATER}


@pytest.mark.parametrize("status", [None, "deactivated", "deleting", "erased"])
async def test_who_cannot_be_assigned(database: Database, people: People, status: str | None) -> None:
    user_id = new_id() if status is None else (await add_person(database, "gone", status=status)).user_id
    task_id = await add_task(database, people.alice)
    with pytest.raises(Invalid) as caught:
        await give(database, people.alice, task_id, user_id)
    assert [(error.field, error.code) for error in caught.value.errors] == [("/user_id", "not_found")]
    with pytest.raises(NotFound):
        await take(database, people.alice, task_id, user_id)
    assert await count(database, TaskAssignee) == await count(database, Activity) == 0
    assert await version(database, task_id) == 1


async def test_there_is_a_most(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    many = [user_row(f"person-{number}") for number in range(assign.MOST_ASSIGNEES)]
    await add_rows(database, User, many)
    await add_rows(database, TaskAssignee, [assignee_row(task_id, each["id"]) for each in many])
    with pytest.raises(Invalid) as caught:
        await give(database, people.alice, task_id, people.bob.user_id)
    assert [(error.field, error.code) for error in caught.value.errors] == [("/user_id", "too_many")]
    await give(database, people.alice, task_id, many[0]["id"])  # who has it is not one more
    await take(database, people.alice, task_id, many[0]["id"])
    await give(database, people.alice, task_id, people.bob.user_id)
    assert await count(database, TaskAssignee) == assign.MOST_ASSIGNEES


async def test_only_the_version_that_was_read(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    for attempt, user_id in ((give, people.carol.user_id), (take, people.bob.user_id)):
        with pytest.raises(PreconditionFailed):
            await attempt(database, people.alice, task_id, user_id, 7)
        with pytest.raises(Forbidden):  # whatever the version
            await attempt(database, people.bob, task_id, user_id, 7)
    await give(database, people.alice, task_id, people.carol.user_id, 1)
    await take(database, people.alice, task_id, people.bob.user_id, 2)
    assert await assignees(database) == {people.carol.user_id}


async def test_not_in_the_bin(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob], deleted_at=NOW)
    for attempt, user_id in ((give, people.carol.user_id), (take, people.bob.user_id)):
        with pytest.raises(Conflict) as caught:
            await attempt(database, people.alice, task_id, user_id)
        assert caught.value.error_code == "already_deleted"
        with pytest.raises(NotFound):  # who sees every task, but not in the bin
            await attempt(database, people.dora, task_id, user_id)
    assert await assignees(database) == {people.bob.user_id}


# -- at the same time ----------------------------------------------------------------------------------------


async def test_many_at_once_are_all_there(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    many = [user_row(f"person-{number}") for number in range(12)]
    await add_rows(database, User, many)
    wanted = [row["id"] for row in many] * 2  # each twice
    await asyncio.gather(*(give(database, people.alice, task_id, user_id) for user_id in wanted))
    assert await assignees(database) == set(wanted)
    assert await version(database, task_id) == 1 + len(many) == 1 + await count(database, Activity)


async def test_who_is_deactivated_at_the_same_time_is_not_assigned(database: Database, people: People) -> None:
    """Nor who is deleted: that takes all tasks away, and must not miss one that is given just then."""
    task_id = await add_task(database, people.alice)
    async with database.write() as session:
        await session.execute(update(User).where(User.id == people.bob.user_id).values(status="deactivated"))
        giving: asyncio.Task[Any] = asyncio.create_task(give(database, people.alice, task_id, people.bob.user_id))
        done, _ = await asyncio.wait([giving], timeout=0.2)
        assert not done  # it waits to see what becomes of him
    with pytest.raises(Invalid):
        await giving
    assert await count(database, TaskAssignee) == 0
    assert (await one(database, Task)).version == 1
