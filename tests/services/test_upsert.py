"""Rows that may be there already: left alone or changed, and a deadlock on the way is one that is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, NotificationPreference, Reminder, Task, User
from scheduler.accounts.preferences import set_reminder_emails, wants_reminder_emails
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.reminders.manage import snooze
from scheduler.upsert import upsert
from tests.factories import NOW, People, add_reminder, add_task
from tests.services.stored import count, one, rows
from tests.services.test_task_reminders import HOUR

Work = Callable[[AsyncSession], Awaitable[Any]]


def preference(person: Any, **columns: Any) -> dict[str, Any]:
    return {"user_id": person.user_id, "type": "reminder", "channel": "email", "enabled": True} | columns


async def test_a_row_that_is_there_stays_or_changes(database: Database, people: People) -> None:
    alice, bob, carol = (preference(person) for person in people[:3])
    off = {"enabled": False}
    async with database.write() as session:
        await upsert(session, NotificationPreference, [alice, bob])
        await upsert(session, NotificationPreference, [bob | off, carol | off])
    states = {row.user_id: row.enabled for row in await rows(database, NotificationPreference)}
    assert states == {alice["user_id"]: True, bob["user_id"]: True, carol["user_id"]: False}
    async with database.write() as session:
        await upsert(session, NotificationPreference, [alice | off, carol | {"enabled": True}], change=["enabled"])
    states = {row.user_id: row.enabled for row in await rows(database, NotificationPreference)}
    assert states == {alice["user_id"]: False, bob["user_id"]: True, carol["user_id"]: True}


async def test_another_unique_key_counts_too(database: Database) -> None:
    row = {
        "reminder_id": new_id(),
        "task_id": new_id(),
        "user_id": new_id(),
        "audience": "assignees",
        "channel": "email",
        "state": "sent",
        "fire_at": NOW,
        "created_at": NOW,
    }
    first = new_id()
    async with database.write() as session:
        await upsert(session, Delivery, [row | {"id": first}])
        await upsert(session, Delivery, [row | {"id": new_id(), "state": "failed"}])
    stored = await one(database, Delivery)
    assert (stored.id, stored.state) == (first, "sent")


async def test_clicks_at_the_same_time(database: Database, people: People) -> None:
    async def click(enabled: bool) -> None:
        await database.retry_write(
            lambda session: set_reminder_emails(session, user_id=people.bob.user_id, enabled=enabled)
        )

    await asyncio.gather(*(click(number % 2 == 0) for number in range(10)))
    assert await count(database, NotificationPreference) == 1
    for enabled in (False, True):
        await click(enabled)
        async with database.read() as session:
            assert await wants_reminder_emails(session, user_id=people.bob.user_id) is enabled


# -- deadlocks -----------------------------------------------------------------------------------------------


async def deadlock(database: Database, *, held: Any, first: Work, then: Work) -> int:
    """Run `then` so that it closes a circle: it waits for what another transaction did `first`, which waits for the
    row `held`, which `then` has locked. Returns how often `then` was begun.

    The other one has changed far more, so InnoDB makes `then` the victim.
    """
    locked, begun = asyncio.Event(), 0

    async def heavy() -> None:
        async with database.write() as session:
            await session.execute(update(User).values(bio="much"))
            await session.execute(update(User).values(bio="more"))
            await first(session)
            ready.set()
            await locked.wait()
            await session.execute(held.with_for_update())

    async def light(session: AsyncSession) -> None:
        nonlocal begun
        begun += 1
        await session.execute(held.with_for_update())
        locked.set()
        await then(session)

    ready = asyncio.Event()
    other = asyncio.create_task(heavy())
    await ready.wait()
    await database.retry_write(light)
    await other
    return begun


async def test_a_deadlock_while_snoozing_is_tried_again(database: Database, people: People) -> None:
    if not database.is_mysql:
        pytest.skip("on SQLite one writes at a time")
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    reminder_id = await add_reminder(database, task_id, people.alice, NOW + HOUR)
    told = {
        "id": new_id(),
        "reminder_id": reminder_id,
        "task_id": task_id,
        "user_id": people.bob.user_id,
        "audience": "assignees",
        "channel": "email",
        "state": "skipped",
        "reason": "snoozed",
        "fire_at": NOW + HOUR,
        "created_at": NOW,
    }

    async def snooze_it(session: AsyncSession) -> None:
        await snooze(session, actor=people.bob, reminder_id=reminder_id, until=NOW + 2 * HOUR, now=NOW)

    times = await deadlock(
        database,
        held=select(Task.id).where(Task.id == task_id),
        first=lambda session: session.execute(insert(Delivery).values(told)),
        then=snooze_it,
    )
    assert times == 2
    assert (await one(database, Delivery)).id == told["id"]
    assert (await one(database, Reminder, Reminder.audience == "me")).fire_at == NOW + 2 * HOUR


async def test_a_deadlock_while_choosing_is_tried_again(database: Database, people: People) -> None:
    if not database.is_mysql:
        pytest.skip("on SQLite one writes at a time")
    task_id = await add_task(database, people.alice)

    async def choose(session: AsyncSession) -> None:
        await set_reminder_emails(session, user_id=people.bob.user_id, enabled=False)

    async def nothing(session: AsyncSession) -> None:
        """It has changed the person's row, for which the choice's foreign key waits."""

    held = select(Task.id).where(Task.id == task_id)
    assert await deadlock(database, held=held, first=nothing, then=choose) == 2
    assert (await one(database, NotificationPreference)).enabled is False
