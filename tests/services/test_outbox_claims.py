"""Who holds an e-mail: one sender at a time; what a server took is never sent for want of a row."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from bench.sink import SinkProcess
from models import Delivery, Email, Reminder, Task
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.outbox.claim import LEASE, claim_emails, hand_back, settle_sent
from scheduler.settings import Settings
from tests.factories import NOW, People, seed_due_reminders
from tests.services.conftest import Clock, Worker
from tests.services.stored import one, reap, tally
from tests.services.test_outbox import remind, unstuffed

MINUTE = timedelta(minutes=1)


async def test_claims_never_overlap(database: Database, settings: Settings, smtp_worker: Worker) -> None:
    await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=300, people=10, fire_at=NOW)
    await smtp_worker.tick()
    taken: list[UUID] = []

    async def claimer() -> None:
        owner = new_id()
        while True:
            async with database.write() as session:
                claimed = await claim_emails(session, owner=owner, now=NOW, limit=20)
            if not claimed:
                return
            taken.extend(email.id for email in claimed)

    await asyncio.gather(*(claimer() for _ in range(10)))
    assert len(taken) == len(set(taken)) == 300
    assert await tally(database, Email.state) == {"sending": 300}


async def test_a_lease_that_runs_out_is_taken_up_and_the_same_message_sent(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    await remind(database, people.alice)
    await smtp_worker.tick()
    written = await one(database, Email)
    async with database.write() as session:
        await claim_emails(session, owner=new_id(), now=NOW)
    assert await smtp_worker.send() is None
    clock.now = NOW + LEASE
    assert await reap(database, worker="other", now=clock.now) is None
    clock.pass_(microseconds=1)
    assert await reap(database, worker="other", now=clock.now) == {"reminders": 0, "emails": 1, "runs": 0}
    await smtp_worker.send()
    (arrival,) = sink.messages()
    email = await one(database, Email)
    assert (arrival.message_id, unstuffed(arrival.body)) == (written.message_id, written.message)
    assert (email.state, email.attempts) == ("sent", 2)


async def test_what_is_handed_back_is_not_counted_and_goes_at_once(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess
) -> None:
    await remind(database, people.alice, people.bob)
    await smtp_worker.tick()
    owner = new_id()
    async with database.write() as session:
        await claim_emails(session, owner=owner, now=NOW, limit=1)
        assert await hand_back(session, owner=new_id(), now=NOW) == 0
        assert await hand_back(session, owner=owner, now=NOW) == 1
    assert await tally(database, Email.attempts) == {0: 2}
    await smtp_worker.send()
    assert sink.count() == 2


async def test_what_a_server_took_is_sent_whoever_holds_the_row_by_now(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess
) -> None:
    await remind(database, people.alice)
    await smtp_worker.tick()
    async with database.write() as session:
        (email,) = await claim_emails(session, owner=new_id(), now=NOW)
    await reap(database, worker="other", now=NOW + LEASE + MINUTE)  # it was suspended; it is not dead
    async with database.write() as session:
        await settle_sent(session, emails=[email], now=NOW + MINUTE)
        await settle_sent(session, emails=[email], now=NOW + 2 * MINUTE)
    assert (await one(database, Email)).sent_at == NOW + MINUTE
    assert (await one(database, Delivery)).sent_at == (await one(database, Reminder)).sent_at == NOW + MINUTE
    assert await tally(database, Task.version) == {2: 1}
    assert await smtp_worker.send() is None and sink.count() == 0
