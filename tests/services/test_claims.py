"""Who holds a reminder: one worker at a time, for as long as its lease lasts and nobody changes the task."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from models import Delivery, Email, Reminder, Run, Task
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.reminders import claim as reminder_claims
from scheduler.reminders.claim import LEASE, claim_due, release_expired
from scheduler.reminders.fire import fire
from scheduler.settings import Settings
from tests.factories import NOW, People, add_reminder, add_task, before, seed_due_reminders
from tests.services.conftest import Clock, Maildir, Worker
from tests.services.stored import count, one, reap, rows, tally
from tests.services.test_tasks import change, create

SECOND = timedelta(seconds=1)


async def test_claims_never_overlap(database: Database, settings: Settings) -> None:
    ids = await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=600, people=10, fire_at=NOW)
    taken: list[UUID] = []
    claims: dict[UUID, int] = {}

    async def claimer() -> None:
        while True:
            claim = new_id()
            async with database.write() as session:
                due = await claim_due(session, claim=claim, now=NOW, limit=25)
            if not due:
                return
            taken.extend(each.id for each in due)
            claims[claim] = len(due)

    await asyncio.gather(*(claimer() for _ in range(10)))
    assert sorted(taken) == sorted(ids)
    stored = await rows(database, Reminder)
    assert {row.state for row in stored} == {"claimed"} and {row.seq for row in stored} == {1}
    assert await tally(database, Reminder.owner) == claims


async def test_the_longest_due_first(database: Database, people: People) -> None:
    task_id = await add_task(database, people.alice)
    for seconds in (3, 9, 1, 7, 5):
        await add_reminder(database, task_id, people.alice, NOW - timedelta(seconds=seconds))
    async with database.write() as session:
        due = await claim_due(session, claim=new_id(), now=NOW, limit=3)
    assert sorted((NOW - each.fire_at).seconds for each in due) == [5, 7, 9]


async def test_two_workers_at_once_send_one_message_each(
    database: Database, settings: Settings, worker: Worker, maildir: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=200, people=20, fire_at=NOW)
    monkeypatch.setattr(reminder_claims.claim_due, "__kwdefaults__", {"limit": 20})
    other = Worker(database, settings, worker.clock, worker.transport, name="other")
    await asyncio.gather(worker.work(), other.work(), other.tick(), worker.tick())
    await asyncio.gather(worker.send(), other.send())
    assert len(maildir.messages()) == 200
    assert await tally(database, Reminder.state) == {"sent": 200}
    assert await tally(database, Delivery.state) == {"sent": 200}
    assert await tally(database, Email.attempts) == {1: 200}
    assert await tally(database, Task.version) == {2: 200}


async def test_a_lease_that_runs_out_is_taken_up(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir
) -> None:
    task_id = await add_task(database, people.alice)
    await add_reminder(database, task_id, people.alice, NOW)
    dead = new_id()
    async with database.write() as session:
        assert len(await claim_due(session, claim=dead, now=NOW)) == 1
    assert await worker.tick() is None
    clock.now = NOW + LEASE
    assert await reap(database, worker="other", now=clock.now) is None
    clock.pass_(microseconds=1)
    assert await reap(database, worker="other", now=clock.now) == {"reminders": 1, "emails": 0, "runs": 0}
    reminder = await one(database, Reminder)
    assert (reminder.state, reminder.owner, reminder.lease_until, reminder.seq) == ("pending", None, None, 1)
    await worker.work()
    reminder = await one(database, Reminder)
    assert (reminder.state, reminder.seq) == ("sent", 2)
    assert len(maildir.messages()) == 1
    runs = {run.job: run for run in await rows(database, Run)}
    assert runs["reap"].state == "succeeded" and runs["reap"].result["reminders"] == 1


async def test_two_reapers_give_back_once(database: Database, settings: Settings) -> None:
    await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=50, people=2, fire_at=NOW)
    async with database.write() as session:
        await claim_due(session, claim=new_id(), now=NOW)

    async def release() -> int:
        async with database.write() as session:
            return await release_expired(session, now=NOW + timedelta(minutes=1))

    assert sum(await asyncio.gather(*(release() for _ in range(4)))) == 50


@pytest.mark.parametrize(
    ("changes", "lost", "state"),
    [
        ({"status": "completed"}, 1, "skipped"),
        ({"due_at": NOW + timedelta(days=1)}, 1, "pending"),
        ({"due_at": None}, 1, "skipped"),
        ({"reminders": []}, 1, None),
        ({"title": "Another"}, 0, "sending"),
    ],
)
async def test_a_claim_that_a_change_took_away_is_not_sent(
    database: Database, people: People, worker: Worker, changes: dict[str, Any], lost: int, state: str | None
) -> None:
    task_id = await create(database, people.alice, due_at=NOW + timedelta(hours=1), reminders=[before(60 - 1)])
    other_id = await add_task(database, people.bob)
    await add_reminder(database, other_id, people.bob, NOW)
    now, claim = NOW + timedelta(minutes=1), new_id()
    async with database.write() as session:
        due = await claim_due(session, claim=claim, now=now)
    assert len(due) == 2
    await change(database, people.alice, task_id, now=now, **changes)
    fired = await fire(database, claim=claim, due=due, emails=worker.emails, settings=worker.settings, now=now)
    assert (fired.lost, fired.claimed, fired.emails) == (lost, 2 - lost, 2 - lost)
    assert await count(database, Email) == 2 - lost
    assert [row.state for row in await rows(database, Reminder, Reminder.task_id == task_id)] == (
        [state] if state else []
    )
    if lost == 0:
        subjects = {row.subject for row in await rows(database, Email)}
        assert "Reminder: Another" in subjects  # what it says is what the task is now


async def test_a_claim_that_a_reaper_took_away_is_not_sent(database: Database, people: People, worker: Worker) -> None:
    """A worker that was suspended between its claim and now."""
    task_id = await add_task(database, people.alice)
    await add_reminder(database, task_id, people.alice, NOW)
    claim, now = new_id(), NOW + LEASE + SECOND
    async with database.write() as session:
        due = await claim_due(session, claim=claim, now=NOW)
    await reap(database, worker="other", now=now)
    worker.clock.now = now
    await worker.tick()
    for _ in range(2):
        fired = await fire(database, claim=claim, due=due, emails=worker.emails, settings=worker.settings, now=now)
        assert (fired.claimed, fired.lost) == (0, 1)
    assert await count(database, Email) == await count(database, Delivery) == 1
