"""Snoozing: another time, for one person only."""

from __future__ import annotations

import pytest

from models import Delivery, Reminder
from scheduler.database import Database
from scheduler.errors import Conflict, Invalid, NotFound
from scheduler.identifiers import new_id
from tests.factories import NOW, People, add_reminder, add_task, before
from tests.services.stored import count, one, rows, set_, version
from tests.services.test_task_reminders import DUE, HOUR, put_off
from tests.services.test_tasks import change, create


async def test_snoozing_is_for_one_person_only(database: Database, people: People) -> None:
    task_id = await create(
        database,
        people.alice,
        due_at=DUE,
        assignee_ids=[people.bob.user_id, people.carol.user_id],
        reminders=[before(60)],
    )
    common = await one(database, Reminder)
    mine = await put_off(database, people.bob, common.id, DUE + HOUR)
    assert (mine.state, mine.audience, mine.user_id, mine.fire_at) == (
        "pending",
        "me",
        people.bob.user_id,
        DUE + HOUR,
    )
    assert mine.offset_minutes is None
    unchanged = await one(database, Reminder, Reminder.id == common.id)
    assert (unchanged.state, unchanged.fire_at) == ("pending", DUE - HOUR)
    left_out = await one(database, Delivery)
    assert (left_out.user_id, left_out.state, left_out.reason) == (people.bob.user_id, "skipped", "snoozed")
    assert left_out.fire_at == DUE - HOUR
    assert await version(database, task_id) == 1


@pytest.mark.parametrize("state", ["pending", "sent"])
async def test_snoozing_again_moves_the_snooze(database: Database, people: People, state: str) -> None:
    """A double click, or ten minutes and then rather an hour: one reminder comes, at the later word."""
    task_id = await add_task(database, people.alice)
    reminder_id = await add_reminder(database, task_id, people.alice, NOW + HOUR, state=state)
    await put_off(database, people.alice, reminder_id, NOW + 2 * HOUR)
    await put_off(database, people.alice, reminder_id, NOW + 3 * HOUR)
    pending = await rows(database, Reminder, Reminder.audience == "me", Reminder.state == "pending")
    assert [row.fire_at for row in pending] == [NOW + 3 * HOUR]


async def test_a_private_one_moves_also_after_it_was_sent(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, due_at=DUE, reminders=[before(60, audience="me")])
    reminder = await one(database, Reminder)
    await set_(database, Reminder, reminder.id, state="sent", sent_at=DUE - HOUR)
    row = await put_off(database, people.alice, reminder.id, DUE + HOUR, now=DUE)
    assert (row.id, row.state, row.fire_at, row.sent_at) == (reminder.id, "pending", DUE + HOUR, None)
    assert await count(database, Reminder) == 1
    # It has a time of its own now, and the due date does not move it any more.
    await change(database, people.alice, task_id, due_at=DUE + 24 * HOUR)
    assert (await one(database, Reminder)).fire_at == DUE + HOUR


async def test_what_cannot_be_snoozed(database: Database, people: People) -> None:
    task_id = await create(database, people.alice, due_at=DUE, reminders=[before(60)])
    reminder = await one(database, Reminder)
    for until in (NOW, NOW - HOUR):
        with pytest.raises(Invalid) as invalid:
            await put_off(database, people.alice, reminder.id, until)
        assert [error.field for error in invalid.value.errors] == ["/until"]
    for actor, reminder_id in ((people.carol, reminder.id), (people.alice, new_id())):
        with pytest.raises(NotFound):
            await put_off(database, actor, reminder_id, DUE)
    await change(database, people.alice, task_id, status="completed")
    with pytest.raises(Conflict) as conflict:
        await put_off(database, people.alice, reminder.id, DUE)
    assert conflict.value.error_code == "already_completed"
    assert await count(database, Delivery) == 0
