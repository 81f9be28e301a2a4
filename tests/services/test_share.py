"""Sharing a task: who sees it then and may change it, in lists too, and what becomes of their own reminders."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from uuid import UUID

import pytest

from models import Activity, Delivery, Reminder, TaskShare, User
from scheduler.access import Actor, Permission
from scheduler.accounts.client import Client
from scheduler.accounts.profile import change_profile
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from scheduler.identifiers import new_id
from scheduler.tasks import share
from tests.factories import (
    NOW,
    People,
    add_person,
    add_reminder,
    add_rows,
    add_task,
    at,
    before,
    share_row,
    user_row,
)
from tests.services.conftest import Clock, Maildir, Worker
from tests.services.stored import count, one, rows, set_, statements, version
from tests.services.test_task_lists import page, titles
from tests.services.test_task_reminders import DUE, HOUR, add, listed, put_off
from tests.services.test_tasks import LATER, change, read

CLIENT = Client("192.0.2.7", "a browser")


async def give(
    database: Database,
    actor: Actor,
    task_id: UUID,
    user_id: UUID,
    permission: str = "view",
    if_version: int | None = None,
) -> None:
    await database.retry_write(
        lambda session: share.share(
            session,
            actor=actor,
            task_id=task_id,
            user_id=user_id,
            permission=Permission(permission),
            now=LATER,
            client=CLIENT,
            if_version=if_version,
        )
    )


async def take(database: Database, actor: Actor, task_id: UUID, user_id: UUID, if_version: int | None = None) -> None:
    await database.retry_write(
        lambda session: share.unshare(
            session, actor=actor, task_id=task_id, user_id=user_id, now=LATER, client=CLIENT, if_version=if_version
        )
    )


async def shares(database: Database) -> dict[UUID, str]:
    return {row.user_id: row.permission for row in await rows(database, TaskShare)}


async def test_shared_changed_and_taken_back(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    bob = people.bob.user_id
    await give(database, people.alice, task_id, bob)
    task = await read(database, people.bob, task_id)
    assert [(person.id, person.name, person.permission) for person in task.shared_with] == [(bob, "Bob", "view")]
    assert (task.assignees, task.row.version, task.row.updated_at) == ([], 2, LATER)
    with pytest.raises(Forbidden):
        await change(database, people.bob, task_id, title="His")
    await give(database, people.alice, task_id, bob, "edit")
    await change(database, people.bob, task_id, title="His", status="completed", assignee_ids=[people.dora.user_id])
    assert await version(database, task_id) == 4
    await give(database, people.bob, task_id, people.carol.user_id, "edit")
    assert (await read(database, people.carol, task_id)).row.title == "His"
    await take(database, people.carol, task_id, bob)
    with pytest.raises(NotFound):
        await read(database, people.bob, task_id)
    assert await shares(database) == {people.carol.user_id: "edit"}
    assert await version(database, task_id) == 6
    his, hers = ({"user_id": str(user_id)} for user_id in (bob, people.carol.user_id))
    view, edit = {"permission": "view"}, {"permission": "edit"}
    done = {
        "title": ["Water the plants", "His"],
        "status": ["todo", "completed"],
        "assignee_ids": [[], [str(people.dora.user_id)]],
    }
    assert [(row.actor_id, row.action, row.changes) for row in await rows(database, Activity)] == [
        (people.alice.user_id, "task_shared", {"shared_with": [None, his | view]}),
        (people.alice.user_id, "task_shared", {"shared_with": [his | view, his | edit]}),
        (bob, "task_changed", done),
        (bob, "task_shared", {"shared_with": [None, hers | edit]}),
        (people.carol.user_id, "task_unshared", {"shared_with": [his | edit, None]}),
    ]
    for row in await rows(database, Activity, Activity.action != "task_changed"):
        assert (row.target_type, row.target_id, row.at, row.ip, row.user_agent) == ("task", task_id, LATER, *CLIENT)


async def test_the_same_again_changes_nothing(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, shared_with=[(people.bob, "edit")])
    await give(database, people.alice, task_id, people.bob.user_id, "edit")
    assert await version(database, task_id) == 1
    assert await count(database, Activity) == 0


@pytest.mark.parametrize("status", [None, "deactivated", "deleting", "erased"])
async def test_who_it_cannot_be_shared_with(database: Database, people: People, status: str | None) -> None:
    user_id = new_id() if status is None else (await add_person(database, "gone", status=status)).user_id
    task_id = await add_task(database, people.alice)
    with pytest.raises(Invalid) as caught:
        await give(database, people.alice, task_id, user_id)
    assert [(error.field, error.code) for error in caught.value.errors] == [("/user_id", "not_found")]
    with pytest.raises(NotFound):
        await take(database, people.alice, task_id, user_id)
    assert await count(database, TaskShare) == await count(database, Activity) == 0


async def test_its_creator_has_it_already(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, shared_with=[(people.bob, "edit")])
    for actor in (people.alice, people.bob, people.dora):
        with pytest.raises(Invalid) as caught:
            await give(database, actor, task_id, people.alice.user_id)
        assert [(error.field, error.code) for error in caught.value.errors] == [("/user_id", "creator")]
    assert await shares(database) == {people.bob.user_id: "edit"}


async def test_there_is_a_most(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    many = [user_row(f"person-{number}") for number in range(share.MOST_SHARES)]
    await add_rows(database, User, many)
    await add_rows(database, TaskShare, [share_row(task_id, each["id"], "view") for each in many])
    with pytest.raises(Invalid) as caught:
        await give(database, people.alice, task_id, people.bob.user_id)
    assert [(error.field, error.code) for error in caught.value.errors] == [("/user_id", "too_many")]
    await give(database, people.alice, task_id, many[0]["id"], "edit")  # who has it is not one more
    await take(database, people.alice, task_id, many[0]["id"])
    await give(database, people.alice, task_id, people.bob.user_id)
    assert await count(database, TaskShare) == share.MOST_SHARES


async def test_only_the_version_that_was_read(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, shared_with=[(people.bob, "view")])
    for attempt, user_id in ((give, people.carol.user_id), (take, people.bob.user_id)):
        with pytest.raises(PreconditionFailed):
            await attempt(database, people.alice, task_id, user_id, if_version=7)
        with pytest.raises(Forbidden):  # whatever the version
            await attempt(database, people.bob, task_id, user_id, if_version=7)
    await give(database, people.alice, task_id, people.carol.user_id, if_version=1)
    await take(database, people.alice, task_id, people.bob.user_id, if_version=2)
    assert await shares(database) == {people.carol.user_id: "view"}


async def test_not_in_the_bin(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, shared_with=[(people.bob, "edit")], deleted_at=NOW)
    for attempt, user_id in ((give, people.carol.user_id), (take, people.bob.user_id)):
        with pytest.raises(Conflict) as caught:
            await attempt(database, people.alice, task_id, user_id)
        assert caught.value.error_code == "already_deleted"
        for actor in (people.bob, people.dora):  # who may not take it out again
            with pytest.raises(NotFound):
                await attempt(database, actor, task_id, user_id)


async def test_of_many_at_once_the_last_word_stands(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    await asyncio.gather(
        *(
            give(database, people.alice, task_id, user_id, permission)
            for user_id in (people.bob.user_id, people.carol.user_id)
            for permission in ("view", "edit") * 4
        )
    )
    assert (await shares(database)).keys() == {people.bob.user_id, people.carol.user_id}
    said = [row.changes["shared_with"] for row in await rows(database, Activity)]
    assert await version(database, task_id) == 1 + len(said)
    for user_id, permission in (await shares(database)).items():
        mine = [new["permission"] for _, new in said if new["user_id"] == str(user_id)]
        # Each change was one, and the last of them is what stands.
        assert all(one != other for one, other in pairwise(mine)) and mine[-1] == permission


# -- in lists and answers ------------------------------------------------------------------------------------


async def test_mine_is_also_what_is_shared_with_me(database: Database, people: People) -> None:
    shared = [(people.bob, "view"), (people.carol, "edit")]
    await add_task(database, people.alice, title="shared", shared_with=shared)
    await add_task(database, people.alice, title="both", assignees=[people.bob], shared_with=shared)
    await add_task(database, people.alice, title="binned", shared_with=shared, deleted_at=NOW)
    await add_task(database, people.alice, title="hers")
    await add_task(database, people.carol, title="carols")
    assert sorted(await titles(database, people.bob)) == ["both", "shared"]
    assert sorted(await titles(database, people.carol)) == ["both", "carols", "shared"]
    assert sorted(await titles(database, people.bob, limit=1)) == ["both", "shared"]
    assert (await page(database, people.bob, count=True)).total == 2
    assert sorted(await titles(database, people.alice)) == ["both", "hers", "shared"]
    assert await titles(database, people.dora) == []
    (task,) = [each for each in (await page(database, people.bob)).items if each.row.title == "both"]
    assert [person.name for person in task.assignees] == ["Bob"]
    assert [(person.name, person.permission) for person in task.shared_with] == [("Bob", "view"), ("Carol", "edit")]


async def test_a_page_costs_the_same_however_many_people(database: Database, people: People) -> None:
    costs = set()
    made = 0
    for more in (1, 9, 30):
        made += more
        for _ in range(more):
            await add_task(
                database,
                people.alice,
                assignees=[people.bob],
                shared_with=[(each, "view") for each in (people.bob, people.carol, people.dora)],
            )
        with statements(database) as seen:
            answer = await page(database, people.carol, limit=200)
        assert len(answer.items) == made
        assert all(len(task.shared_with) == 3 and len(task.assignees) == 1 for task in answer.items)
        costs.add(len([each for each in seen if "SELECT" in each]))
    assert costs == {3}


async def test_a_new_name_raises_the_versions_of_tasks_shared_with_that_person(
    database: Database, people: People
) -> None:
    shared = await add_task(database, people.alice, shared_with=[(people.bob, "view")])
    other = await add_task(database, people.alice, shared_with=[(people.carol, "view")])
    async with database.write() as session:
        await change_profile(session, actor=people.bob, changes={"name": "Robert"}, now=LATER)
    assert (await version(database, shared), await version(database, other)) == (2, 1)
    assert [person.name for person in (await read(database, people.alice, shared)).shared_with] == ["Robert"]


# -- reminders -----------------------------------------------------------------------------------------------


async def test_who_has_it_shared_has_reminders_of_their_own_only(database: Database, people: People) -> None:
    task_id = await add_task(
        database, people.alice, due_at=DUE, shared_with=[(people.bob, "view"), (people.carol, "edit")]
    )
    common = await add(database, people.carol, task_id, before(60))
    with pytest.raises(Forbidden):
        await add(database, people.bob, task_id, before(60))
    private = await add(database, people.bob, task_id, at(NOW + HOUR, audience="me"))
    assert [row.id for row in await listed(database, people.bob, task_id)] == [private.id, common.id]
    assert [row.id for row in await listed(database, people.carol, task_id)] == [common.id]
    snoozed = await put_off(database, people.bob, common.id, DUE + HOUR)
    assert (snoozed.user_id, snoozed.audience) == (people.bob.user_id, "me")


async def test_reminders_go_to_assignees_and_private_ones_to_who_still_sees_the_task(
    database: Database, people: People, worker: Worker, maildir: Maildir, clock: Clock
) -> None:
    task_id = await add_task(
        database, people.alice, shared_with=[(people.bob, "view"), (people.carol, "edit")], due_at=DUE
    )
    await add_reminder(database, task_id, people.alice, NOW)
    for person in (people.bob, people.carol):
        await add_reminder(database, task_id, person, NOW, audience="me")
    await take(database, people.alice, task_id, people.carol.user_id)
    await worker.work()
    # The common one is for the creator, as nobody is assigned: sharing assigns nothing.
    assert [message["To"] for message in maildir.messages()] == ["Alice <alice@example.com>", "Bob <bob@example.com>"]
    skipped = await one(database, Delivery, Delivery.state == "skipped")
    assert (skipped.user_id, skipped.reason) == (people.carol.user_id, "not_visible")
    # … and one that lies in the outbox is withdrawn when the task is taken from its reader meanwhile.
    await add_reminder(database, task_id, people.bob, clock.pass_(minutes=1), audience="me")
    await worker.tick()
    await take(database, people.alice, task_id, people.bob.user_id)
    clock.pass_(minutes=1)
    await worker.send()
    assert len(maildir.messages()) == 2
    assert await count(database, Delivery, Delivery.state == "skipped", Delivery.reason == "not_visible") == 2
    assert await count(database, Reminder, Reminder.state == "skipped") == 2


async def test_who_is_assigned_and_shared_keeps_what_is_left(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob], shared_with=[(people.bob, "view")])
    await change(database, people.bob, task_id, title="As assignee")
    await change(database, people.alice, task_id, assignee_ids=[])
    assert (await read(database, people.bob, task_id)).row.title == "As assignee"
    with pytest.raises(Forbidden):
        await change(database, people.bob, task_id, title="As viewer")
    await set_(database, User, people.alice.user_id, status="deactivated")
    assert (await read(database, people.bob, task_id)).row.creator_name == "Alice"
