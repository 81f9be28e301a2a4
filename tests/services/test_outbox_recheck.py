"""E-mails that could not leave for a while are looked at again before they do (semantics, 3.4)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bench.sink import SinkProcess
from models import Delivery, Email, NotificationPreference, Reminder, Task, TaskAssignee, User
from scheduler.database import Database
from scheduler.settings import Settings
from tests.factories import NOW, People, add_reminder, add_task, before
from tests.services.conftest import Clock, Worker
from tests.services.stored import count, one, set_, tally, version
from tests.services.test_outbox import recipients
from tests.services.test_tasks import change, create

MINUTE = timedelta(minutes=1)


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize(
    "reason",
    [
        "task_completed",
        "task_deleted",
        "deactivated",
        "not_visible",
        "email_unverified",
        "preference_off",
        "moved",
        None,
    ],
)
async def test_an_email_that_was_delayed_is_looked_at_again(
    database: Database,
    people: People,
    settings: Settings,
    sink: SinkProcess,
    smtp_worker: Worker,
    clock: Clock,
    reason: str | None,
) -> None:
    task_id = await create(
        database,
        people.alice,
        due_at=NOW + 2 * MINUTE,
        assignee_ids=[people.bob.user_id],
        reminders=[before(1, audience="assignees")],
    )
    clock.pass_(minutes=1)
    sink.go_away()
    await smtp_worker.work()
    sink.come_back()
    if reason == "task_completed":
        await change(database, people.alice, task_id, status="completed", now=clock.now)
    elif reason == "task_deleted":
        await set_(database, Task, task_id, deleted_at=clock.now)
    elif reason == "deactivated":
        await set_(database, User, people.bob.user_id, status="deactivated")
    elif reason == "not_visible":
        async with database.write() as session:
            await session.execute(TaskAssignee.__table__.delete())
    elif reason == "email_unverified":
        await set_(database, User, people.bob.user_id, email_verified_at=None)
        smtp_worker.sender._settings = settings.model_copy(update={"require_verified_email": True})
    elif reason == "preference_off":
        async with database.write() as session:
            session.add(
                NotificationPreference(user_id=people.bob.user_id, type="reminder", channel="email", enabled=False)
            )
    elif reason == "moved":
        await change(database, people.alice, task_id, due_at=NOW + timedelta(days=1), now=clock.now)
    before_it = await version(database, task_id)
    clock.pass_(seconds=31)
    await smtp_worker.send()
    delivery = await one(database, Delivery)
    if reason is None:
        assert (delivery.state, recipients(sink)) == ("sent", ["bob@example.com"])
        return
    assert (delivery.state, delivery.reason, delivery.email_id) == ("skipped", reason, None)
    assert recipients(sink) == [] and await count(database, Email) == 0
    reminder = await one(database, Reminder)
    assert (reminder.state, reminder.reason) == (("pending", None) if reason == "moved" else ("skipped", reason))
    assert await version(database, task_id) == before_it + 1
    assert await smtp_worker.send() is None


async def test_withdrawn_for_one_it_still_goes_to_the_other(
    database: Database, people: People, sink: SinkProcess, smtp_worker: Worker, clock: Clock
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    await add_reminder(database, task_id, people.alice, NOW)
    sink.go_away()
    await smtp_worker.work()
    sink.come_back()
    await set_(database, User, people.bob.user_id, status="deactivated")
    clock.pass_(minutes=1)
    for _ in range(3):
        await smtp_worker.send()
    assert recipients(sink) == ["carol@example.com"]
    assert await tally(database, Delivery.state) == {"skipped": 1, "sent": 1}
    assert (await one(database, Reminder)).state == "sent"
