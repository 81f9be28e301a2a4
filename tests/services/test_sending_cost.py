"""Bulk is what makes it quick: statements do not grow with reminders."""

from __future__ import annotations

import asyncio

import pytest

from bench.sink import SinkProcess
from models import Delivery, Email, Reminder, Run, Task
from scheduler.database import Database
from scheduler.settings import Settings
from tests.factories import NOW, seed_due_reminders
from tests.services.conftest import Worker
from tests.services.stored import rows, statements, tally

REMINDERS, PEOPLE = 2000, 50


@pytest.mark.heavy(on="mariadb")
async def test_less_than_a_tenth_of_a_statement_a_reminder_ledger_and_all(
    database: Database, settings: Settings, smtp_worker: Worker, sink: SinkProcess
) -> None:
    sink.keep_bodies(False)
    ids = await asyncio.to_thread(
        seed_due_reminders, settings.database_url, reminders=REMINDERS, people=PEOPLE, fire_at=NOW
    )
    with statements(database) as seen:
        fired = await smtp_worker.tick()
        counts = await smtp_worker.send()
    assert len(seen) / REMINDERS < 0.1, f"{len(seen)} statements"
    assert fired is not None and (fired.claimed, fired.emails) == (REMINDERS, REMINDERS)
    assert counts == {"sent": REMINDERS, "deferred": 0, "dead": 0, "handed_back": 0, "lost": 0}
    messages = sink.messages()
    assert len({message.message_id for message in messages}) == len(messages) == REMINDERS
    for column in (Reminder.state, Delivery.state, Email.state):
        assert await tally(database, column) == {"sent": REMINDERS}
    assert await tally(database, Task.version) == {2: REMINDERS}
    assert {row.reminder_id for row in await rows(database, Delivery)} == set(ids)
    assert await tally(database, Run.state) == {"succeeded": 2}


@pytest.mark.heavy(on="mariadb")
async def test_late_ones_cost_no_more(
    database: Database, settings: Settings, smtp_worker: Worker, sink: SinkProcess
) -> None:
    """After downtime: everything that was missed, for many people, is gathered in bulk as well."""
    smtp_worker.clock.pass_(hours=1)
    await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=1200, people=240, fire_at=NOW)
    with statements(database) as seen:
        await smtp_worker.work()
    assert len(seen) / 1200 < 0.1, f"{len(seen)} statements"
    assert sink.count() == 1200
