"""A reminder that is due: claimed by one worker, looked at again, delivered once, and a run that says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from models import Delivery, Email, NotificationPreference, Reminder, Run, TaskAssignee, User
from scheduler.database import Database
from scheduler.settings import Settings
from tests.factories import NOW, People, add_reminder, add_task, at, before
from tests.services.conftest import Clock, Maildir, Worker
from tests.services.stored import count, one, rows, set_, tally, version
from tests.services.test_task_reminders import put_off
from tests.services.test_tasks import change, create

SECOND = timedelta(seconds=1)


# -- once ----------------------------------------------------------------------------------------------------


async def test_one_reminder_one_message(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir
) -> None:
    await set_(database, User, people.alice.user_id, timezone="Europe/Berlin")
    task_id = await create(
        database,
        people.alice,
        title="Pay rent 🏠",
        due_at=NOW + timedelta(minutes=31),
        reminders=[before(30)],
    )
    assert await worker.tick() is None
    clock.pass_(minutes=1)
    fired = await worker.tick()
    assert fired is not None
    assert (fired.claimed, fired.emails, fired.late, fired.skipped, fired.lost) == (1, 1, 0, 0, 0)
    assert (await one(database, Reminder)).state == "sending"
    assert await version(database, task_id) == 1
    assert await worker.send() == {"sent": 1, "deferred": 0, "dead": 0, "handed_back": 0, "lost": 0}
    (message,) = maildir.messages()
    email, delivery, reminder = (
        await one(database, Email),
        await one(database, Delivery),
        await one(database, Reminder),
    )
    assert message["Subject"] == "Reminder: Pay rent 🏠"
    assert message["To"] == "Alice <alice@example.com>"
    assert message["Message-ID"] == email.message_id
    body = message.get_body(("plain",))
    assert body is not None
    assert "Mon 2 Mar 2026, 13:31 (Europe/Berlin)" in body.get_content()
    assert (email.state, email.attempts, email.sent_at, email.owner) == ("sent", 1, clock.now, None)
    assert (delivery.state, delivery.sent_at, delivery.email_id) == ("sent", clock.now, email.id)
    assert (delivery.reminder_id, delivery.task_id, delivery.user_id) == (
        reminder.id,
        task_id,
        people.alice.user_id,
    )
    assert (reminder.state, reminder.sent_at, reminder.owner) == ("sent", clock.now, None)
    assert await version(database, task_id) == 2
    # Nothing is left to do, however often one asks.
    assert await worker.tick() is None and await worker.send() is None
    assert len(maildir.messages()) == await count(database, Delivery) == 1


async def test_it_goes_to_whoever_is_assigned_when_it_fires(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    task_id = await create(
        database,
        people.alice,
        reminders=[at(NOW + SECOND), at(NOW + SECOND, audience="me")],
        assignee_ids=[people.bob.user_id],
    )
    await change(database, people.alice, task_id, assignee_ids=[people.carol.user_id, people.dora.user_id])
    worker.clock.pass_(seconds=1)
    await worker.work()
    assert [message["To"].addresses[0].addr_spec for message in maildir.messages()] == [
        "alice@example.com",
        "carol@example.com",
        "dora@example.com",
    ]
    assert await count(database, Delivery, Delivery.state == "sent") == 3
    # Two reminders of one task raise its version once, if their e-mails are settled together; a busy machine may not.
    assert await version(database, task_id) in (3, 4)


async def test_what_is_not_due_does_not_fire(database: Database, people: People, worker: Worker) -> None:
    task_id = await add_task(database, people.alice)
    await add_reminder(database, task_id, people.alice, NOW + timedelta(microseconds=1))
    assert await worker.tick() is None
    assert await count(database, Delivery) == 0
    await add_reminder(database, task_id, people.alice, NOW)
    fired = await worker.tick()
    assert fired is not None and fired.claimed == 1


async def test_a_firing_that_has_its_delivery_is_not_repeated(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir
) -> None:
    """A clock that was set back, or a row restored from a backup: the unique key holds."""
    task_id = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    for _ in range(3):
        await add_reminder(database, task_id, people.alice, NOW)
    await worker.work()
    again, *_ = await rows(database, Reminder)
    await set_(database, Reminder, again.id, state="pending")
    fresh = await add_reminder(database, task_id, people.alice, NOW)
    await worker.work()
    assert await count(database, Delivery) == len(maildir.messages()) == 8
    assert await tally(database, Delivery.state) == {"sent": 8}
    assert (await one(database, Reminder, Reminder.id == fresh)).state == "sent"
    assert await worker.tick() is None


async def test_snoozed_by_one_it_goes_to_the_others(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    reminder_id = await add_reminder(database, task_id, people.alice, NOW + SECOND)
    other_id = await add_reminder(database, task_id, people.alice, NOW + SECOND, audience="me")
    await put_off(database, people.bob, reminder_id, NOW + timedelta(hours=1))
    clock.pass_(seconds=1)
    await worker.work()
    assert [message["To"].addresses[0].addr_spec for message in maildir.messages()] == [
        "alice@example.com",
        "carol@example.com",
    ]
    assert {(await one(database, Reminder, Reminder.id == each)).state for each in (reminder_id, other_id)} == {"sent"}
    clock.pass_(hours=1)
    await worker.work()
    assert [message["To"].addresses[0].addr_spec for message in maildir.messages()][1] == "bob@example.com"
    assert len(maildir.messages()) == 3


async def test_snoozed_by_all_it_is_skipped_for_that(
    database: Database, people: People, worker: Worker, clock: Clock
) -> None:
    task_id = await add_task(database, people.alice)
    reminder_id = await add_reminder(database, task_id, people.alice, NOW + SECOND)
    await put_off(database, people.alice, reminder_id, NOW + timedelta(hours=1))
    clock.pass_(seconds=1)
    await worker.tick()
    reminder = await one(database, Reminder, Reminder.id == reminder_id)
    assert (reminder.state, reminder.reason) == ("skipped", "snoozed")


# -- looked at again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "task", "person", "need_verified"),
    [
        ("task_completed", {"status": "completed"}, {}, False),
        ("task_deleted", {"deleted_at": NOW}, {}, False),
        ("deactivated", {}, {"status": "deactivated"}, False),
        ("email_unverified", {}, {"email_verified_at": None}, True),
        (None, {}, {"email_verified_at": None}, False),
        ("preference_off", {}, {}, False),
        ("not_visible", {}, {}, False),
    ],
)
async def test_what_is_not_sent_says_why(
    database: Database,
    people: People,
    worker: Worker,
    settings: Settings,
    reason: str | None,
    task: dict[str, Any],
    person: dict[str, Any],
    need_verified: bool,
) -> None:
    # Behind the services' back, as by a change that lands between claim and sending.
    task_id = await add_task(database, people.alice, assignees=[people.bob], **task)
    audience = "me" if reason == "not_visible" else "assignees"
    await add_reminder(database, task_id, people.bob, NOW, audience=audience)
    if person:
        await set_(database, User, people.bob.user_id, **person)
    async with database.write() as session:
        if reason == "preference_off":
            session.add(
                NotificationPreference(user_id=people.bob.user_id, type="reminder", channel="email", enabled=False)
            )
        if reason == "not_visible":
            await session.execute(TaskAssignee.__table__.delete())
    worker.settings = settings.model_copy(update={"require_verified_email": need_verified})
    fired = await worker.tick()
    assert fired is not None
    delivery, reminder = await one(database, Delivery), await one(database, Reminder)
    assert (delivery.user_id, delivery.reason) == (people.bob.user_id, reason)
    if reason is None:
        assert (delivery.state, fired.emails) == ("sending", 1)
        return
    assert (delivery.state, delivery.email_id, reminder.state, reminder.reason) == (
        "skipped",
        None,
        "skipped",
        reason,
    )
    assert (fired.claimed, fired.emails, fired.skipped) == (1, 0, 1)
    assert await count(database, Email) == 0
    assert await version(database, task_id) == 2


async def test_a_preference_for_something_else_is_none_for_reminders(
    database: Database, people: People, worker: Worker
) -> None:
    task_id = await add_task(database, people.alice)
    await add_reminder(database, task_id, people.alice, NOW)
    async with database.write() as session:
        for kind, channel in (("digest", "email"), ("reminder", "push")):
            session.add(NotificationPreference(user_id=people.alice.user_id, type=kind, channel=channel, enabled=False))
        session.add(
            NotificationPreference(user_id=people.alice.user_id, type="reminder", channel="email", enabled=True)
        )
    await worker.tick()
    assert (await one(database, Delivery)).state == "sending"


async def test_one_of_two_who_does_not_want_it(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    await add_reminder(database, task_id, people.alice, NOW)
    await set_(database, User, people.bob.user_id, status="deactivated")
    await worker.work()
    assert await tally(database, Delivery.state) == {"skipped": 1, "sent": 1}
    assert ((await one(database, Reminder)).state, (await one(database, Reminder)).reason) == ("sent", None)
    assert len(maildir.messages()) == 1


async def test_one_that_cannot_be_rendered_harms_no_other(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    for number in range(5):
        task_id = await add_task(database, people.alice, priority=9 if number == 2 else 2, title=str(number))
        await add_reminder(database, task_id, people.alice, NOW)
    fired = await worker.tick()
    await worker.send()
    assert fired is not None and (fired.claimed, fired.emails) == (5, 4)
    assert len(maildir.messages()) == 4
    assert await tally(database, Reminder.state) == {"sent": 4, "failed": 1}
    failed = await one(database, Delivery, Delivery.state == "failed")
    assert (failed.reason, failed.email_id) == ("render_error", None)
    run = await one(database, Run, Run.job == "send_reminders")
    assert run.state == "succeeded"
