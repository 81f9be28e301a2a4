"""After downtime: up to five late reminders a person by themselves, more as one e-mail (semantics, 3.5)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from models import Delivery, Email, Reminder, Run, Task, User
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.reminders import claim as reminder_claims
from scheduler.reminders.claim import claim_due
from scheduler.reminders.late import PATIENCE
from scheduler.settings import Settings
from tests.factories import NOW, People, add_reminder, add_task, seed_due_reminders
from tests.services.conftest import Clock, Maildir, Worker
from tests.services.stored import count, one, reap, rows, set_, tally
from tests.services.test_tasks import change

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


async def remind(database: Database, people: People, number: int, *, late: timedelta = HOUR) -> list[object]:
    """That many reminders of alice's, each of a task of its own, whose time passed so long ago."""
    return [
        await add_reminder(
            database,
            await add_task(database, people.alice, title=f"Task {each}"),
            people.alice,
            NOW - late - each * MINUTE,
        )
        for each in range(number)
    ]


@pytest.mark.parametrize("number", [1, 5])
async def test_up_to_five_by_themselves_each_naming_its_time(
    database: Database, people: People, worker: Worker, maildir: Maildir, number: int
) -> None:
    await set_(database, User, people.alice.user_id, timezone="Asia/Tokyo")
    await remind(database, people, number)
    fired = await worker.tick()
    assert fired is not None and (fired.claimed, fired.late, fired.emails) == (number, number, number)
    await worker.send()
    subjects = sorted(message["Subject"] for message in maildir.messages())
    # 12:00 UTC minus an hour, and a minute more each, in Tokyo.
    expected = [
        f"Reminder for {'20:00' if each == 0 else f'19:{60 - each}'}, Mon 2 Mar 2026: Task {each}"
        for each in range(number)
    ]
    assert subjects == sorted(expected)
    assert await tally(database, Reminder.state) == await tally(database, Delivery.state) == {"sent": number}
    assert await tally(database, Email.template) == {"reminder": number}


async def test_more_become_one_that_lists_them_all(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    await set_(database, User, people.alice.user_id, timezone="Asia/Kathmandu")
    await remind(database, people, 6)
    await worker.work()
    (message,) = maildir.messages()
    assert message["Subject"] == "While we were away: 6 reminders"
    for kind in ("plain", "html"):
        part = message.get_body((kind,))
        assert part is not None
        text = part.get_content()
        for each in range(6):
            assert f"Task {each}" in text
            meant_for = NOW - HOUR - each * MINUTE + timedelta(hours=5, minutes=45)
            assert f"{meant_for:%H:%M}, Mon 2 Mar 2026" in text
    email = await one(database, Email)
    assert email.template == "missed_reminders"
    assert await tally(database, Delivery.email_id) == {email.id: 6}
    assert await tally(database, Reminder.state) == await tally(database, Delivery.state) == {"sent": 6}
    assert await tally(database, Task.version) == {2: 6}


async def test_each_person_is_counted_alone(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    for number in range(6):
        assigned = [people.bob, people.carol] if number < 5 else [people.carol]
        task_id = await add_task(database, people.alice, assignees=assigned, title=f"Task {number}")
        await add_reminder(database, task_id, people.alice, NOW - HOUR)
    await worker.work()
    assert [message["To"].addresses[0].addr_spec for message in maildir.messages()] == [
        *["bob@example.com"] * 5,
        "carol@example.com",
    ]


async def test_those_in_time_are_not_counted_with_the_late_ones(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    await remind(database, people, 5)
    task_id = await add_task(database, people.alice, title="In time")
    for seconds in (60, 30, 0):
        await add_reminder(database, task_id, people.alice, NOW - timedelta(seconds=seconds))
    await worker.work()
    assert len(maildir.messages()) == 8
    assert [message["Subject"] for message in maildir.messages()].count("Reminder: In time") == 3


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("workers", [1, 2])
async def test_one_email_a_person_across_many_claims_and_workers(
    database: Database,
    settings: Settings,
    worker: Worker,
    maildir: Maildir,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=240, people=12, fire_at=NOW - HOUR)
    monkeypatch.setattr(reminder_claims.claim_due, "__kwdefaults__", {"limit": 7})
    everybody = [Worker(database, settings, worker.clock, worker.transport, name=str(n)) for n in range(workers)]
    await asyncio.gather(*(each.work() for each in everybody))
    for each in everybody:  # who came last gathers what is left
        await each.work()
    assert [message["Subject"] for message in maildir.messages()] == ["While we were away: 20 reminders"] * 12
    assert await tally(database, Reminder.state) == await tally(database, Delivery.state) == {"sent": 240}
    assert len(await tally(database, Delivery.email_id)) == 12


async def test_a_reminder_that_a_dead_worker_holds_is_waited_for(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir
) -> None:
    await remind(database, people, 6)
    async with database.write() as session:
        await claim_due(session, claim=new_id(), now=NOW, limit=1)
    await worker.work()
    assert maildir.messages() == []
    assert await tally(database, Delivery.state) == {"gathering": 5}
    clock.pass_(seconds=16)
    await reap(database, worker="other", now=clock.now)
    await worker.work()
    assert [message["Subject"] for message in maildir.messages()] == ["While we were away: 6 reminders"]


async def test_but_not_for_ever(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir
) -> None:
    await remind(database, people, 6)
    async with database.write() as session:
        await claim_due(session, claim=new_id(), now=NOW, limit=1)
    await worker.work()
    clock.now = NOW + PATIENCE
    await worker.work()
    assert maildir.messages() == []
    clock.pass_(microseconds=1)
    await worker.work()
    assert len(maildir.messages()) == 5


async def test_a_worker_that_dies_before_it_gathers_loses_nothing(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    """The e-mails are written by the next tick, although nothing is due any more, and that is a run too."""
    await remind(database, people, 6)
    await worker.tick()
    email = await one(database, Email)
    async with database.write() as session:
        await session.execute(Email.__table__.delete())
        await session.execute(Delivery.__table__.update().values(state="gathering"))
        await session.execute(Run.__table__.delete())
    await worker.tick()
    assert (await one(database, Email)).id != email.id
    assert (await one(database, Run)).job == "send_reminders"
    await worker.send()
    assert [message["Subject"] for message in maildir.messages()] == ["While we were away: 6 reminders"]


async def test_what_waits_is_looked_at_again_before_it_goes(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir
) -> None:
    """ "Checked again at the moment of sending" (semantics, 3.4), also after the half minute of gathering."""
    await remind(database, people, 4)
    async with database.write() as session:
        (held,) = await claim_due(session, claim=new_id(), now=NOW, limit=1)
    await worker.tick()
    done, binned, kept = [row.task_id for row in await rows(database, Delivery)]
    await change(database, people.alice, done, status="completed", now=NOW)
    await set_(database, Task, binned, deleted_at=NOW)
    clock.now = NOW + PATIENCE + timedelta(seconds=1)
    await worker.work()
    assert len(maildir.messages()) == 1
    by_task = {row.task_id: (row.state, row.reason) for row in await rows(database, Delivery)}
    assert by_task == {
        done: ("skipped", "task_completed"),
        binned: ("skipped", "task_deleted"),
        kept: ("sent", None),
    }
    assert held.task_id not in by_task


async def test_one_that_cannot_be_rendered_harms_no_other(
    database: Database, people: People, worker: Worker, maildir: Maildir
) -> None:
    await remind(database, people, 3)
    bad = await add_task(database, people.bob, priority=9)
    await add_reminder(database, bad, people.bob, NOW - HOUR)
    await worker.work()
    assert len(maildir.messages()) == 3
    assert await tally(database, Reminder.state) == {"sent": 3, "failed": 1}
    failed = await one(database, Delivery, Delivery.state == "failed")
    assert (failed.reason, failed.task_id) == ("render_error", bad)
    assert await count(database, Delivery, Delivery.state == "gathering") == 0
