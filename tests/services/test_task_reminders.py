"""Reminders of tasks: they follow their task, and each person sees and manages what is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from models import Reminder
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, Invalid, NotFound
from scheduler.identifiers import new_id
from scheduler.reminders.manage import add_reminder as set_reminder
from scheduler.reminders.manage import delete_reminder, list_reminders, snooze
from scheduler.reminders.rows import MOST_OF_A_TASK, ReminderSpec
from tests.factories import NOW, People, add_reminder, add_task, at, before
from tests.services.stored import count, one, rows, set_, version
from tests.services.test_tasks import LATER, change, create, delete, restore

DUE = NOW + timedelta(days=1)
HOUR = timedelta(hours=1)


async def stands(database: Database, task_id: UUID) -> list[tuple[str, str | None, datetime]]:
    """State, reason and fire time of a task's reminders, in the order they were made."""
    found = await rows(database, Reminder, Reminder.task_id == task_id)
    return [(row.state, row.reason, row.fire_at) for row in found]


async def add(database: Database, actor: Actor, task_id: UUID, spec: ReminderSpec) -> Row[Any]:
    async with database.write() as session:
        return await set_reminder(session, actor=actor, task_id=task_id, spec=spec, now=NOW)


async def put_off(
    database: Database, actor: Actor, reminder_id: UUID, until: datetime, now: datetime = NOW
) -> Row[Any]:
    async with database.write() as session:
        return await snooze(session, actor=actor, reminder_id=reminder_id, until=until, now=now)


async def remove(database: Database, actor: Actor, reminder_id: UUID) -> None:
    async with database.write() as session:
        await delete_reminder(session, actor=actor, reminder_id=reminder_id, now=LATER)


async def listed(database: Database, actor: Actor, task_id: UUID, limit: int = 50) -> Sequence[Row[Any]]:
    found: list[Row[Any]] = []
    cursor = None
    while True:
        async with database.read() as session:
            page = await list_reminders(session, actor=actor, task_id=task_id, limit=limit, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


# -- they follow their task ----------------------------------------------------------------------------------


async def test_relative_ones_move_with_the_due_time(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, due_at=DUE, reminders=[before(60), at(DUE - 2 * HOUR)])
    await change(database, people.alice, task_id, due_at=DUE + HOUR)
    assert await stands(database, task_id) == [("pending", None, DUE), ("pending", None, DUE - 2 * HOUR)]
    await change(database, people.alice, task_id, due_at=NOW + HOUR)
    assert await stands(database, task_id) == [
        ("skipped", "past_when_set", NOW),
        ("pending", None, DUE - 2 * HOUR),
    ]
    await change(database, people.alice, task_id, due_at=None)
    assert (await stands(database, task_id))[0][:2] == ("skipped", "no_due_date")
    await change(database, people.alice, task_id, due_at=DUE)
    assert await stands(database, task_id) == [
        ("pending", None, DUE - HOUR),
        ("pending", None, DUE - 2 * HOUR),
    ]


async def test_all_day_counts_from_nine_and_follows_zone_and_kind(database: Database, people: People) -> None:
    midnight = datetime(2026, 3, 8, 5, 0, tzinfo=UTC)  # in New York, where the clocks change that night
    task_id = await create(
        database,
        people.alice,
        due_at=midnight,
        all_day=True,
        timezone="America/New_York",
        reminders=[before(60)],
    )
    assert await stands(database, task_id) == [("pending", None, datetime(2026, 3, 8, 12, 0, tzinfo=UTC))]
    await change(database, people.alice, task_id, timezone="Asia/Tokyo")
    assert await stands(database, task_id) == [("pending", None, datetime(2026, 3, 7, 23, 0, tzinfo=UTC))]
    await change(database, people.alice, task_id, all_day=False)
    assert await stands(database, task_id) == [("pending", None, datetime(2026, 3, 7, 14, 0, tzinfo=UTC))]


async def test_completing_skips_and_reopening_brings_back_those_still_ahead(database: Database, people: People) -> None:
    specs = [before(60), at(NOW + HOUR), before(0, audience="me")]
    task_id = await create(database, people.alice, due_at=DUE, reminders=specs)
    await change(database, people.alice, task_id, status="completed")
    assert {state[:2] for state in await stands(database, task_id)} == {("skipped", "task_completed")}
    await change(database, people.alice, task_id, status="todo", now=NOW + 2 * HOUR)
    assert await stands(database, task_id) == [
        ("pending", None, DUE - HOUR),
        ("skipped", "task_completed", NOW + HOUR),
        ("pending", None, DUE),
    ]


async def test_the_bin_does_the_same(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, due_at=DUE, reminders=[before(60)])
    await delete(database, people.alice, task_id)
    assert await stands(database, task_id) == [("skipped", "task_deleted", DUE - HOUR)]
    await restore(database, people.alice, task_id)
    assert await stands(database, task_id) == [("pending", None, DUE - HOUR)]
    await change(database, people.alice, task_id, status="completed")
    await delete(database, people.alice, task_id)
    await restore(database, people.alice, task_id)
    assert await stands(database, task_id) == [("skipped", "task_completed", DUE - HOUR)]


async def test_whoever_had_claimed_one_loses_it(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, due_at=DUE, reminders=[before(60), at(DUE)])
    for row in await rows(database, Reminder):
        await set_(database, Reminder, row.id, state="claimed", owner=new_id(), lease_until=LATER, seq=1)
    await change(database, people.alice, task_id, title="New")
    assert {row.state for row in await rows(database, Reminder)} == {"claimed"}
    await change(database, people.alice, task_id, due_at=DUE + HOUR)
    relative, absolute = await rows(database, Reminder)
    assert (relative.state, relative.owner, relative.lease_until) == ("pending", None, None)
    assert absolute.state == "claimed" and absolute.owner is not None
    await change(database, people.alice, task_id, status="completed")
    assert {(row.state, row.owner) for row in await rows(database, Reminder)} == {("skipped", None)}


async def test_what_was_sent_is_sent_until_it_lies_ahead_again(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, due_at=DUE, reminders=[before(60)])
    reminder = await one(database, Reminder)
    await set_(database, Reminder, reminder.id, state="sent", sent_at=DUE - HOUR)
    after = DUE - timedelta(minutes=30)
    await change(database, people.alice, task_id, status="completed", now=after)
    await change(database, people.alice, task_id, status="todo", now=after)
    await change(database, people.alice, task_id, due_at=DUE - HOUR, now=after)
    assert (await one(database, Reminder)).sent_at == DUE - HOUR
    await change(database, people.alice, task_id, due_at=DUE + HOUR, now=after)
    reminder = await one(database, Reminder)
    assert (reminder.state, reminder.fire_at, reminder.sent_at) == ("pending", DUE, None)


# -- a list replaces the list --------------------------------------------------------------------------------


async def test_sending_the_same_list_again_neither_repeats_nor_loses_one(database: Database, people: People) -> None:
    specs = [before(60), before(60), at(NOW + HOUR)]
    task_id = await create(database, people.alice, due_at=DUE, reminders=specs)
    made = await rows(database, Reminder)
    await set_(database, Reminder, made[0].id, state="sent", sent_at=NOW)
    await set_(database, Reminder, made[2].id, state="sent", sent_at=NOW + HOUR)
    # … also when the absolute one is past by now: it is not new.
    await change(database, people.alice, task_id, reminders=specs[::-1], now=NOW + 2 * HOUR)
    assert [row.id for row in await rows(database, Reminder)] == [row.id for row in made]
    assert [row.state for row in await rows(database, Reminder)] == ["sent", "pending", "sent"]
    await change(database, people.alice, task_id, reminders=[before(60), before(10)], now=NOW + 2 * HOUR)
    kept, new = await rows(database, Reminder)
    assert (kept.id, kept.state) == (made[0].id, "sent")
    assert (new.offset_minutes, new.state, new.user_id) == (10, "pending", people.alice.user_id)
    await change(database, people.alice, task_id, reminders=[])
    assert await rows(database, Reminder) == []


async def test_private_ones_of_others_are_not_touched_by_a_list(database: Database, people: People) -> None:
    task_id = await create(
        database, people.alice, due_at=DUE, assignee_ids=[people.bob.user_id], reminders=[before(60)]
    )
    private = await add(database, people.bob, task_id, before(60, audience="me"))
    await change(database, people.alice, task_id, reminders=[])
    assert [row.id for row in await rows(database, Reminder)] == [private.id]
    # Alice's own with the same offset is another one; sent twice, it is one.
    for _ in range(2):
        await change(database, people.alice, task_id, reminders=[before(60, audience="me")])
    assert {row.user_id for row in await rows(database, Reminder)} == {
        people.alice.user_id,
        people.bob.user_id,
    }
    assert await count(database, Reminder) == 2


async def test_what_is_wrong_in_a_list_is_pointed_at_where_it_stands(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, reminders=[at(NOW + HOUR)])
    bad = [at(NOW + HOUR), at(LATER), before(10), at(NOW + 2 * HOUR)]
    with pytest.raises(Invalid) as caught:
        await change(database, people.alice, task_id, reminders=bad, title="New")
    assert [(error.field, error.code) for error in caught.value.errors] == [
        ("/reminders/1/remind_at", "past"),
        ("/reminders/2/offset_minutes", "needs_due_at"),
    ]
    assert await version(database, task_id) == 1
    assert await count(database, Reminder) == 1
    with pytest.raises(Invalid) as caught:
        await create(database, people.alice, reminders=[before(10), at(NOW)])
    assert [error.field for error in caught.value.errors] == [
        "/reminders/0/offset_minutes",
        "/reminders/1/remind_at",
    ]


async def test_due_date_and_reminders_at_once(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, reminders=[at(NOW + HOUR)])
    await change(database, people.alice, task_id, due_at=DUE, reminders=[before(30), at(NOW + HOUR)])
    assert sorted(stand[2] for stand in await stands(database, task_id)) == [NOW + HOUR, DUE - HOUR / 2]
    # The due date goes, and with it the reminder that counts from it; the list that was sent says so.
    with pytest.raises(Invalid):
        await change(database, people.alice, task_id, due_at=None, reminders=[before(10)])


async def test_limits(database: Database, people: People) -> None:
    many = [at(NOW + timedelta(minutes=minute)) for minute in range(1, MOST_OF_A_TASK + 2)]
    with pytest.raises(Invalid) as caught:
        await create(database, people.alice, reminders=many)
    assert [(error.field, error.code) for error in caught.value.errors] == [("/reminders", "too_long")]
    task_id = await create(database, people.alice, assignee_ids=[people.bob.user_id], reminders=many[:-1])
    with pytest.raises(Invalid):
        await add(database, people.alice, task_id, many[-1])
    with pytest.raises(Invalid):
        await add(database, people.bob, task_id, many[-1]._replace(audience="me"))
    # The same number, all of them others.
    await change(
        database,
        people.alice,
        task_id,
        now=NOW,
        reminders=[spec._replace(remind_at=NOW + HOUR * index) for index, spec in enumerate(many[1:], 1)],
    )
    assert await count(database, Reminder) == MOST_OF_A_TASK


async def test_snoozing_is_no_way_around_the_limit(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    reminder_id = await add_reminder(database, task_id, people.alice, NOW, state="sent")
    for minute in range(1, MOST_OF_A_TASK + 10):
        try:
            await put_off(database, people.alice, reminder_id, NOW + timedelta(minutes=minute))
        except Invalid:
            break
    assert await count(database, Reminder) <= MOST_OF_A_TASK


# -- single ones ---------------------------------------------------------------------------------------------


async def test_private_ones_are_invisible_to_others(database: Database, people: People) -> None:
    task_id = await create(
        database, people.alice, due_at=DUE, assignee_ids=[people.bob.user_id], reminders=[before(60)]
    )
    private = await add(database, people.bob, task_id, before(120, audience="me"))
    assert private.id in [row.id for row in await listed(database, people.bob, task_id)]
    for actor in (people.alice, people.dora, people.eve):
        assert private.id not in [row.id for row in await listed(database, actor, task_id)]
        for attempt in (remove(database, actor, private.id), put_off(database, actor, private.id, DUE)):
            with pytest.raises(NotFound):
                await attempt
    # Private ones are nobody else's business: the task's version is that of what all see.
    assert await version(database, task_id) == 1
    await remove(database, people.bob, private.id)
    assert await version(database, task_id) == 1


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_soonest_first_in_pages(database: Database, people: People, limit: int) -> None:
    task_id = await add_task(database, people.alice)
    for minutes in (30, 10, 20, 10, 10):
        await add(database, people.alice, task_id, at(NOW + timedelta(minutes=minutes)))
    found = await listed(database, people.alice, task_id, limit)
    assert [(row.fire_at - NOW).seconds // 60 for row in found] == [10, 10, 10, 20, 30]
    assert len({row.id for row in found}) == 5


@pytest.mark.parametrize(
    ("who", "public", "private"),
    [
        ("alice", None, None),
        ("bob", None, None),
        ("carol", NotFound, NotFound),
        ("dora", Forbidden, None),
        ("eve", None, None),
    ],
)
async def test_who_may_set_one(
    database: Database,
    people: People,
    who: str,
    public: type[Exception] | None,
    private: type[Exception] | None,
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob], due_at=DUE)
    actor = getattr(people, who)
    for audience, error in (("assignees", public), ("me", private)):
        if error is not None:
            with pytest.raises(error):
                await add(database, actor, task_id, before(10, audience=audience))
            continue
        row = await add(database, actor, task_id, before(10, audience=audience))
        assert (row.state, row.fire_at, row.user_id) == (
            "pending",
            DUE - timedelta(minutes=10),
            actor.user_id,
        )
    assert await version(database, task_id) == (2 if public is None else 1)


async def test_deleting_one(database: Database, people: People) -> None:
    task_id = await create(
        database, people.alice, due_at=DUE, assignee_ids=[people.bob.user_id], reminders=[before(60)]
    )
    reminder = await one(database, Reminder)
    for actor, error in ((people.carol, NotFound), (people.dora, Forbidden)):
        with pytest.raises(error):
            await remove(database, actor, reminder.id)
    await remove(database, people.bob, reminder.id)
    assert await rows(database, Reminder) == []
    assert await version(database, task_id) == 2
    with pytest.raises(NotFound):
        await remove(database, people.bob, reminder.id)


async def test_not_in_the_bin(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, due_at=DUE, reminders=[before(60)])
    reminder = await one(database, Reminder)
    await delete(database, people.alice, task_id)
    for attempt in (
        add(database, people.alice, task_id, before(5)),
        put_off(database, people.alice, reminder.id, DUE),
    ):
        with pytest.raises(Conflict):
            await attempt
