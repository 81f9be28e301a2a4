"""The list of deliveries: what went out, what was skipped and why, what is planned; each firing once."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from models import Delivery, Email, Reminder
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.deliveries.read import DeliveryEntry, list_deliveries
from scheduler.errors import NotFound
from scheduler.paging import Page
from tests.factories import NOW, People, add_reminder, add_task, before
from tests.services.conftest import Clock, Worker
from tests.services.stored import one, rows, set_, statements
from tests.services.test_task_reminders import put_off
from tests.services.test_tasks import change, create, delete

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def page(database: Database, actor: Actor, **options: Any) -> Page[DeliveryEntry]:
    arguments: dict[str, Any] = {"now": NOW, "limit": 50} | options
    async with database.read() as session:
        return await list_deliveries(session, actor=actor, **arguments)


async def all_pages(database: Database, actor: Actor, **options: Any) -> list[DeliveryEntry]:
    found: list[DeliveryEntry] = []
    cursor = None
    while True:
        answer = await page(database, actor, cursor=cursor, count=True, **options)
        assert len(answer.items) <= options.get("limit", 50)
        found += answer.items
        cursor = answer.next_cursor
        if cursor is None:
            assert answer.total == len(found)
            return found


def repeated(entries: list[DeliveryEntry]) -> list[object]:
    """Firings that stand in the list more than once for one person."""
    seen = Counter((entry.reminder_id, entry.fire_at, entry.user_id) for entry in entries)
    return [firing for firing, number in seen.items() if number > 1]


async def test_planned_then_sent(database: Database, people: People, worker: Worker, clock: Clock) -> None:
    task_id = await create(database, people.alice, due_at=NOW + 2 * HOUR, reminders=[before(60)])
    (planned,) = (await page(database, people.alice)).items
    assert planned._replace(id=task_id, reminder_id=task_id) == DeliveryEntry(
        task_id, task_id, task_id, people.alice.user_id, "email", "planned", None, NOW + HOUR, None, None
    )
    assert (await page(database, people.alice)).items[0].id == planned.id
    now = clock.pass_(hours=1)
    await worker.tick()
    (under_way,) = (await page(database, people.alice, now=now)).items
    assert (under_way.state, under_way.sent_at) == ("planned", None)
    await worker.send()
    (sent,) = (await page(database, people.alice, now=now)).items
    assert (sent.state, sent.sent_at, sent.fire_at) == ("sent", now, now)
    assert sent.message_id == (await one(database, Email)).message_id


async def test_skipped_before_its_time_with_the_reason(database: Database, people: People) -> None:
    for end in ({"status": "completed"}, {"due_at": None}, {"due_at": NOW + HOUR / 2}, None):
        task_id = await create(database, people.alice, due_at=NOW + 2 * HOUR, reminders=[before(60)])
        if end is None:
            await delete(database, people.alice, task_id)
        else:
            await change(database, people.alice, task_id, **end)
    entries = (await page(database, people.alice)).items
    assert {entry.state for entry in entries} == {"skipped"}
    assert {entry.reason for entry in entries} == {
        "task_completed",
        "no_due_date",
        "past_when_set",
        "task_deleted",
    }


async def test_mine_are_those_meant_for_me(database: Database, people: People) -> None:
    assigned = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    unassigned = await add_task(database, people.alice)
    common = await add_reminder(database, assigned, people.alice, NOW + HOUR)
    own = await add_reminder(database, unassigned, people.alice, NOW + HOUR)
    private = await add_reminder(database, assigned, people.alice, NOW + HOUR, audience="me")

    async def mine(actor: Actor) -> set[UUID]:
        entries = (await page(database, actor)).items
        assert {entry.user_id for entry in entries} <= {actor.user_id}
        return {entry.reminder_id for entry in entries}

    assert await mine(people.alice) == {own, private}
    assert await mine(people.bob) == await mine(people.carol) == {common}
    assert await mine(people.dora) == await mine(people.eve) == set()


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_a_tasks_list_has_a_line_for_each_person(database: Database, people: People, limit: int) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob, people.carol, people.dora])
    for hours in (1, 2):
        await add_reminder(database, task_id, people.alice, NOW + hours * HOUR)
    entries = await all_pages(database, people.alice, task_id=task_id, limit=limit)
    assert sorted((entry.fire_at, entry.user_id) for entry in entries) == sorted(
        (NOW + hours * HOUR, each.user_id) for hours in (1, 2) for each in (people.bob, people.carol, people.dora)
    )
    assert len({entry.id for entry in entries}) == 6


async def test_a_tasks_list_hides_private_ones_of_others(
    database: Database, people: People, worker: Worker, clock: Clock
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    fired = await add_reminder(database, task_id, people.bob, NOW, audience="me")
    ahead = await add_reminder(database, task_id, people.bob, NOW + HOUR, audience="me")
    await worker.work()

    async def seen(actor: Actor) -> set[UUID]:
        return {entry.reminder_id for entry in (await page(database, actor, task_id=task_id)).items}

    assert await seen(people.bob) == {fired, ahead}
    for actor in (people.alice, people.dora, people.eve):
        assert await seen(actor) == set()
    with pytest.raises(NotFound):
        await page(database, people.carol, task_id=task_id)


async def test_the_window(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    at = {
        days: await add_reminder(
            database, task_id, people.alice, NOW + days * DAY, state="skipped", reason="no_due_date"
        )
        for days in (-31, -30, -29, 0, 6, 7, 8)
    }
    days_of = {reminder_id: days for days, reminder_id in at.items()}

    async def days(**window: Any) -> list[int]:
        return [days_of[entry.reminder_id] for entry in (await page(database, people.alice, **window)).items]

    assert await days() == [6, 0, -29, -30]
    assert await days(since=NOW - 31 * DAY, until=NOW + 9 * DAY) == [8, 7, 6, 0, -29, -30, -31]
    assert await days(since=NOW, until=NOW + 6 * DAY) == [0]
    assert await days(since=NOW + DAY, until=NOW) == []


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 50])
async def test_pages_go_from_what_is_ahead_into_the_ledger(
    database: Database, people: People, worker: Worker, clock: Clock, limit: int
) -> None:
    task_id = await add_task(database, people.alice)
    for minutes in (0, 0, -0.5, 60, 60, 120):
        await add_reminder(database, task_id, people.alice, NOW + timedelta(minutes=minutes))
    await worker.work()
    entries = await all_pages(database, people.alice, limit=limit)
    assert [entry.state for entry in entries] == ["planned"] * 3 + ["sent"] * 3
    assert [entry.fire_at for entry in entries[:3]] == [NOW + 2 * HOUR, NOW + HOUR, NOW + HOUR]
    assert [entry.fire_at for entry in entries[3:]] == [NOW, NOW, NOW - timedelta(seconds=30)]
    assert len({entry.id for entry in entries}) == 6


@pytest.mark.heavy(on="mariadb")
async def test_a_page_costs_the_same_whatever_its_length(database: Database, people: People, worker: Worker) -> None:
    costs = set()
    for number in (2, 40):
        for _ in range(number):
            task_id = await add_task(database, people.alice)
            await add_reminder(database, task_id, people.alice, NOW)
            await add_reminder(database, task_id, people.alice, NOW + HOUR)
        await worker.tick()
        with statements(database) as seen:
            answer = await page(database, people.alice, limit=200)
        assert len(answer.items) >= 2 * number
        costs.add(len([each for each in seen if each.startswith("SELECT")]))
    assert costs == {2}


# -- each firing once ----------------------------------------------------------------------------------------


async def test_a_snoozed_one_is_not_planned_as_well(
    database: Database, people: People, worker: Worker, clock: Clock
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    reminder_id = await add_reminder(database, task_id, people.alice, NOW + HOUR)
    await put_off(database, people.bob, reminder_id, NOW + 2 * HOUR)
    for entries in (
        (await page(database, people.bob)).items,
        (await page(database, people.alice, task_id=task_id)).items,
    ):
        assert repeated(list(entries)) == []
    states = {(entry.state, entry.reason) for entry in (await page(database, people.bob)).items}
    assert states == {("skipped", "snoozed"), ("planned", None)}
    assert [entry.state for entry in (await page(database, people.carol)).items] == ["planned"]


async def test_a_withdrawn_one_stands_there_once(
    database: Database, people: People, worker: Worker, clock: Clock
) -> None:
    task_id = await add_task(database, people.alice)
    await add_reminder(database, task_id, people.alice, NOW)
    await worker.tick()
    await change(database, people.alice, task_id, status="completed", now=NOW)
    clock.pass_(minutes=1)
    await worker.send()
    assert (await one(database, Reminder)).reason == "task_completed"
    (entry,) = (await page(database, people.alice)).items
    assert (entry.state, entry.reason, entry.message_id) == ("skipped", "task_completed", None)


async def test_what_went_out_stays_when_its_reminder_is_taken_away(
    database: Database, people: People, worker: Worker
) -> None:
    """To the person it went to, and to those who look at the task."""
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    await add_reminder(database, task_id, people.alice, NOW)
    await worker.work()
    await change(database, people.alice, task_id, reminders=[])
    assert await rows(database, Reminder) == []
    assert [entry.state for entry in (await page(database, people.bob)).items] == ["sent"]
    assert [entry.state for entry in (await page(database, people.alice, task_id=task_id)).items] == ["sent"]


async def test_failed_with_the_reason(database: Database, people: People, worker: Worker) -> None:
    task_id = await add_task(database, people.alice)
    await add_reminder(database, task_id, people.alice, NOW)
    await worker.tick()
    await set_(database, Delivery, (await one(database, Delivery)).id, state="failed", reason="refused")
    (entry,) = (await page(database, people.alice)).items
    assert (entry.state, entry.reason) == ("failed", "refused")
