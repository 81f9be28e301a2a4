"""What operators do with the outbox: lists, and e-mails that are tried again."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from bench.sink import SinkProcess
from models import Delivery, Email, Reminder, Task
from scheduler.database import Database
from scheduler.errors import Conflict, NotFound
from scheduler.identifiers import new_id
from scheduler.outbox.claim import claim_emails
from scheduler.outbox.manage import list_emails, retry_email
from scheduler.tasks.change import change_task
from tests.factories import NOW, People, add_rows, email_row
from tests.services.conftest import Clock, Worker
from tests.services.stored import one, set_, tally, version
from tests.services.test_outbox import remind

MINUTE = timedelta(minutes=1)


async def retry(database: Database, email_id: UUID, clock: Clock) -> Any:
    async with database.write() as session:
        return await retry_email(session, email_id=email_id, now=clock.now)


async def test_a_refused_reminder_goes_out_after_all(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    await remind(database, people.alice)
    sink.refuse({"alice@example.com": 550})
    await smtp_worker.work()
    dead = await one(database, Email)
    assert dead.state == "dead" and sink.count() == 0
    assert (await one(database, Delivery)).state == (await one(database, Reminder)).state == "failed"
    before = await version(database, (await one(database, Task)).id)
    sink.refuse({})
    clock.pass_(minutes=5)

    again = await retry(database, dead.id, clock)
    assert (again.state, again.next_attempt_at, again.attempts) == ("pending", clock.now, 1)
    delivery, reminder = await one(database, Delivery), await one(database, Reminder)
    assert (delivery.state, delivery.reason) == ("sending", None)
    assert (reminder.state, reminder.reason) == ("sending", None)
    assert await version(database, delivery.task_id) == before + 1

    await smtp_worker.send()
    (arrival,) = sink.messages()
    assert arrival.message_id == dead.message_id
    assert (await one(database, Email)).state == "sent"
    delivery, reminder = await one(database, Delivery), await one(database, Reminder)
    assert (delivery.state, delivery.sent_at) == (reminder.state, reminder.sent_at) == ("sent", clock.now)


async def test_who_has_done_the_task_meanwhile_is_not_reminded_by_a_retry(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    await remind(database, people.alice)
    sink.refuse({"alice@example.com": 550})
    await smtp_worker.work()
    dead = await one(database, Email)
    sink.refuse({})
    clock.pass_(minutes=5)
    task = await one(database, Task)
    async with database.write() as session:
        await change_task(session, actor=people.alice, task_id=task.id, changes={"status": "completed"}, now=clock.now)
    await retry(database, dead.id, clock)
    await smtp_worker.send()
    assert sink.count() == 0
    delivery = await one(database, Delivery)
    assert (delivery.state, delivery.reason) == ("skipped", "task_completed")
    assert await tally(database, Email.state) == {}


async def test_a_reminder_that_was_moved_since_keeps_its_own_life(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    await remind(database, people.alice)
    sink.refuse({"alice@example.com": 550})
    await smtp_worker.work()
    dead, reminder = await one(database, Email), await one(database, Reminder)
    await set_(database, Reminder, reminder.id, state="pending", fire_at=NOW + timedelta(days=1), reason=None)
    await retry(database, dead.id, clock)
    assert (await one(database, Reminder)).state == "pending"
    assert (await one(database, Delivery)).state == "sending"


async def test_one_that_waits_is_tried_now(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    await remind(database, people.alice)
    sink.refuse({"alice@example.com": 450})
    await smtp_worker.work()
    waiting = await one(database, Email)
    assert waiting.state == "pending" and waiting.next_attempt_at > clock.now
    sink.refuse({})
    assert await smtp_worker.send() is None
    await retry(database, waiting.id, clock)
    await smtp_worker.send()
    assert sink.count() == 1 and (await one(database, Email)).state == "sent"


async def test_what_can_not_be_tried_again(database: Database, clock: Clock) -> None:
    sent, dead = email_row(), email_row(state="dead", sent_at=None, template="verify_email", message=b"")
    waiting = email_row(state="pending", sent_at=None)
    await add_rows(database, Email, [sent, dead, waiting])
    async with database.write() as session:
        await claim_emails(session, owner=new_id(), now=NOW)
    for row, code in ((sent, "already_sent"), (waiting, "already_sending"), (dead, "conflict")):
        with pytest.raises(Conflict) as refused:
            await retry(database, row["id"], clock)
        assert refused.value.error_code == code
    with pytest.raises(NotFound):
        await retry(database, new_id(), clock)
    assert await tally(database, Email.state) == {"sent": 1, "dead": 1, "sending": 1}


@pytest.mark.heavy(on="mariadb")
async def test_lists(database: Database) -> None:
    states = ("pending", "sent", "dead", "sending")
    rows = [
        email_row(
            NOW - number * MINUTE,
            state=states[number % 4],
            template="verify_email" if number % 5 == 0 else "reminder",
            recipient=f"person-{number}@example.com",
            subject=f"Grüße an Nummer {number} 100%",
        )
        for number in range(60)
    ]
    await add_rows(database, Email, rows)
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, list(range(60))),
        ({"states": ["dead"]}, list(range(2, 60, 4))),
        ({"states": ["dead", "sent", "dead"]}, [number for number in range(60) if number % 4 in (1, 2)]),
        ({"templates": ["verify_email"]}, list(range(0, 60, 5))),
        ({"templates": ["verify_email"], "states": ["pending"]}, list(range(0, 60, 20))),
        ({"q": "PERSON-7@"}, [7]),
        ({"q": "nummer 5"}, [5, *range(50, 60)]),
        ({"q": "100%"}, list(range(60))),
        ({"q": "1_0"}, []),
        ({"since": NOW - 9 * MINUTE, "until": NOW - 5 * MINUTE}, [6, 7, 8, 9]),
    ]
    async with database.read() as session:
        for (wanted, numbers), looked_at in product(cases, (1, 10, 1000)):
            found, cursor = [], None
            while True:
                page = await list_emails(session, **wanted, limit=7, cursor=cursor, count=True, looked_at=looked_at)
                assert page.total == len(numbers), wanted
                found += [row.id for row in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert found == [rows[number]["id"] for number in numbers], wanted


async def test_a_page_looks_at_little_more_than_its_rows(database: Database) -> None:
    if not database.is_mysql:
        return  # the same index, without a counter to ask
    rows = [email_row(NOW - number * MINUTE, state="dead" if number % 20 else "sent") for number in range(3000)]
    await add_rows(database, Email, rows)
    counters = text("SHOW SESSION STATUS LIKE 'Handler_read%'")
    some: list[dict[str, Any]] = [{}, {"states": ["sent"]}, {"states": ["sent", "dead"]}]
    for wanted in some:
        async with database.read() as session:
            first = await list_emails(session, **wanted, limit=10)
            for cursor in (None, first.next_cursor):
                before = sum(int(row[1]) for row in await session.execute(counters))
                await list_emails(session, **wanted, limit=10, cursor=cursor)
                assert sum(int(row[1]) for row in await session.execute(counters)) - before < 150, wanted
