"""One's own profile, and the tasks whose answers show a person's name."""

from __future__ import annotations

from typing import Any

import pytest

from models import User
from scheduler.access import Actor
from scheduler.accounts.profile import change_profile
from scheduler.database import Database
from scheduler.tasks import versions
from tests.factories import People, add_task
from tests.services.stored import one, statements, version
from tests.services.test_tasks import LATER, delete, read


async def change(database: Database, actor: Actor, **changes: Any) -> None:
    async with database.write() as session:
        await change_profile(session, actor=actor, changes=changes, now=LATER)


async def test_a_new_name_raises_the_versions_of_the_tasks_that_show_it(database: Database, people: People) -> None:
    made = await add_task(database, people.bob)
    assigned = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    both = await add_task(database, people.bob, assignees=[people.bob])
    in_the_bin = await add_task(database, people.bob)
    await delete(database, people.bob, in_the_bin)
    others = await add_task(database, people.alice, assignees=[people.carol])
    await change(database, people.bob, name="Robert")
    for task_id, wanted in ((made, 2), (assigned, 2), (both, 2), (in_the_bin, 3), (others, 1)):
        assert await version(database, task_id) == wanted
    assert (await read(database, people.bob, made)).row.creator_name == "Robert"
    # What no task shows, and a name that is the same.
    await change(database, people.bob, name="Robert", bio="Builds.", timezone="Europe/Berlin")
    assert await version(database, made) == 2
    user = await one(database, User, User.id == people.bob.user_id)
    assert (user.name, user.bio, user.updated_at) == ("Robert", "Builds.", LATER)


async def test_with_many_tasks_it_takes_few_statements(
    database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "MOST_AT_ONCE", 4)
    tasks = [await add_task(database, people.bob) for _ in range(9)]
    with statements(database) as seen:
        await change(database, people.bob, name="Robert")
    assert sum(statement.startswith("UPDATE task") for statement in seen) == 3
    assert [await version(database, task_id) for task_id in tasks] == [2] * 9
