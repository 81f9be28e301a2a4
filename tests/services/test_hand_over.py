"""E-mails that go from hand to hand: born claimed by this process's own sender, and taken up by others if it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bench.sink import SinkProcess
from models import Delivery, Email, Reminder, Task
from scheduler.database import Database
from scheduler.outbox import hand_over as hand_over_module
from scheduler.reminders.fire import Fired
from scheduler.reminders.send import send_reminders
from scheduler.runs.reap import Reaper
from scheduler.settings import Settings
from tests.factories import NOW, seed_due_reminders
from tests.services.conftest import Clock, Worker
from tests.services.stored import count, reap, statements, tally
from tests.services.test_outbox import Scripted


async def tick(worker: Worker) -> Fired | None:
    """As a worker process does it."""
    return await send_reminders(
        worker.database,
        settings=worker.settings,
        emails=worker.emails,
        worker=worker.name,
        clock=worker.clock,
        hand_over=worker.sender.hand_over,
    )


async def seed(settings: Settings, reminders: int) -> None:
    await asyncio.to_thread(
        seed_due_reminders, settings.database_url, reminders=reminders, people=min(reminders, 50), fire_at=NOW
    )


async def test_from_hand_to_hand(
    database: Database, settings: Settings, smtp_worker: Worker, sink: SinkProcess
) -> None:
    await seed(settings, 100)
    await tick(smtp_worker)
    assert await tally(database, Email.state) == {"sending": 100}
    assert await tally(database, Email.owner) == {smtp_worker.sender.hand_over.owner: 100}
    with statements(database) as seen:
        assert await smtp_worker.send() == {"sent": 100, "deferred": 0, "dead": 0, "handed_back": 0, "lost": 0}
    assert not [each for each in seen if "FROM delivery" in each], "nothing need be read back"
    assert sink.count() == 100
    for column in (Email.state, Delivery.state, Reminder.state):
        assert await tally(database, column) == {"sent": 100}
    assert await tally(database, Email.attempts) == {1: 100}
    assert await tally(database, Task.version) == {2: 100}


async def test_whose_process_dies_they_are_taken_up(
    database: Database, settings: Settings, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    await seed(settings, 10)
    await tick(smtp_worker)
    other = Worker(database, settings, clock, smtp_worker.transport, name="other")
    assert await other.send() is None, "they are claimed"
    clock.pass_(seconds=11)
    await reap(database, worker="other", now=clock.now)
    await other.send()
    assert sink.count() == 10
    assert await tally(database, Reminder.state) == {"sent": 10}


async def test_beyond_what_one_holds_they_wait_in_the_outbox(
    database: Database, settings: Settings, smtp_worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over_module, "MOST", 5)
    await seed(settings, 10)
    await tick(smtp_worker)
    assert await tally(database, Email.state) == {"pending": 10}
    await smtp_worker.send()
    assert await tally(database, Reminder.state) == {"sent": 10}


async def test_told_to_stop_it_hands_back_what_it_was_handed(
    database: Database, settings: Settings, smtp_worker: Worker, clock: Clock, sink: SinkProcess
) -> None:
    await seed(settings, 10)
    await tick(smtp_worker)
    smtp_worker.sender.stop()
    await smtp_worker.sender.hand_back()
    assert await tally(database, Email.state) == {"pending": 10}
    assert await tally(database, Email.attempts) == {0: 10}
    assert await smtp_worker.send() is None
    other = Worker(database, settings, clock, smtp_worker.transport, name="other")
    await other.send()
    assert sink.count() == 10


async def test_what_is_handed_back_after_a_failure_is_not_sent_from_hand_too(
    database: Database, settings: Settings, smtp_worker: Worker, sink: SinkProcess
) -> None:
    """The sender's first transaction fails: what it holds goes back into the outbox, and leaves from there, once."""
    await seed(settings, 10)
    await tick(smtp_worker)
    async with broken_inserts(database, "run"):
        with pytest.raises(DBAPIError):
            await smtp_worker.send()
    assert await tally(database, Email.state) == {"pending": 10}
    await smtp_worker.send()
    assert sink.count() == 10
    assert await tally(database, Reminder.state) == {"sent": 10}


@asynccontextmanager
async def broken_inserts(database: Database, table: str) -> AsyncIterator[None]:
    """The database refuses every new row of a table."""
    refuse = (
        "FOR EACH ROW SIGNAL SQLSTATE '45000'" if database.is_mysql else "BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    async with database.write() as session:
        await session.execute(text(f"CREATE TRIGGER refuse_rows BEFORE INSERT ON {table} {refuse}"))
    try:
        yield
    finally:
        async with database.write() as session:
            await session.execute(text("DROP TRIGGER refuse_rows"))


async def test_what_waited_for_too_long_is_left_to_the_lease(
    database: Database, settings: Settings, smtp_worker: Worker, sink: SinkProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over_module, "LONGEST_S", 0.0)
    await seed(settings, 10)
    await tick(smtp_worker)
    assert await smtp_worker.send() is None
    assert sink.count() == 0 and await tally(database, Email.state) == {"sending": 10}


async def test_a_clock_that_jumps_ahead_sends_nothing_twice(
    database: Database, settings: Settings, clock: Clock
) -> None:
    """By the wall's clock every lease has run out, and a reaper comes by; but the sender is alive, and renews them."""
    await seed(settings, 60)
    transport = Scripted({}, gate=asyncio.Event(), connections=4)
    worker = Worker(database, settings, clock, transport)
    await tick(worker)
    sending = asyncio.create_task(worker.send())
    async with asyncio.timeout(10):
        await transport.two_asked.wait()
    clock.pass_(minutes=1)
    reaper = Reaper(database, worker="other")
    other = Worker(database, settings, clock, transport, name="other")
    await reaper.reap(now=clock.now)
    assert await count(database, Email, Email.state == "sending") == 60, (
        "an expired lease is watched before it is broken"
    )
    assert await other.send() is None
    assert transport.gate is not None
    transport.gate.set()
    await sending
    assert len(transport.taken) == 60
    assert await tally(database, Reminder.state) == {"sent": 60}


async def test_a_clock_that_was_set_back_keeps_no_lease_for_ever(
    database: Database, settings: Settings, smtp_worker: Worker, clock: Clock, sink: SinkProcess
) -> None:
    """The worker dies, and then the clock goes back by an hour: its lease seems to last for an hour."""
    await seed(settings, 10)
    await tick(smtp_worker)
    clock.now -= timedelta(hours=1)
    await reap(database, worker="other", now=clock.now)
    assert await tally(database, Email.state) == {"pending": 10}
