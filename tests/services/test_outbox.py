"""The outbox against a mail server that refuses, goes away and comes back; and one hand for each e-mail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from bench.sink import SinkProcess
from models import Delivery, Email, Reminder, Run, Task, User
from scheduler.accounts.verification import send_verification
from scheduler.database import Database
from scheduler.mail.delivery import Deferred, Envelope, Refused, ServerUnavailable
from scheduler.mail.maildir import MaildirTransport
from scheduler.outbox.claim import GIVE_UP_AFTER
from scheduler.settings import Settings
from tests.factories import NOW, People, add_person, add_reminder, add_task, seed_due_reminders
from tests.services.conftest import Clock, Worker, read_message
from tests.services.stored import count, one, rows, set_, tally

MINUTE = timedelta(minutes=1)


async def remind(database: Database, *actors: Any) -> None:
    """A reminder that is due now, for each."""
    for actor in actors:
        await add_reminder(database, await add_task(database, actor), actor, NOW)


def unstuffed(body: bytes | None) -> bytes | None:
    """A message without the dots that SMTP adds (RFC 5321, 4.5.2); the sink keeps what came over the wire."""
    return body and body.replace(b"\r\n..", b"\r\n.")


def recipients(sink: SinkProcess) -> list[str]:
    return sorted(recipient for message in sink.messages() for recipient in message.recipients)


# -- what a server answers -----------------------------------------------------------------------------------


async def test_a_message_as_the_server_gets_it(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess
) -> None:
    await remind(database, people.alice)
    await smtp_worker.work()
    (arrival,) = sink.messages()
    email = await one(database, Email)
    assert arrival.recipients == ("alice@example.com",) and arrival.message_id == email.message_id
    assert unstuffed(arrival.body) == email.message
    message = read_message(email.message)
    assert message["Date"].datetime == NOW
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["List-Unsubscribe"].startswith("<http://127.0.0.1:8080/act/unsubscribe?token=")


async def test_a_refused_address_is_dead_at_once_and_the_others_go(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    sink.refuse({"bob@example.com": 550})
    await remind(database, people.alice, people.bob, people.carol)
    both = await add_task(database, people.dora, assignees=[people.bob, people.dora])
    await add_reminder(database, both, people.dora, NOW)
    await smtp_worker.tick()
    assert await smtp_worker.send() == {"sent": 3, "deferred": 0, "dead": 2, "handed_back": 0, "lost": 0}
    assert recipients(sink) == ["alice@example.com", "carol@example.com", "dora@example.com"]
    dead = await rows(database, Email, Email.state == "dead")
    assert {(row.recipient, row.attempts, row.owner) for row in dead} == {("bob@example.com", 1, None)}
    assert all("550" in row.last_error for row in dead)
    failed = await rows(database, Delivery, Delivery.state == "failed")
    assert {(row.user_id, row.reason, row.sent_at) for row in failed} == {(people.bob.user_id, "refused", None)}
    # A reminder has failed when nobody got it.
    by_task = {row.task_id: (row.state, row.reason) for row in await rows(database, Reminder)}
    assert by_task.pop(both) == ("sent", None)
    assert sorted(by_task.values(), key=str) == [("failed", "refused"), ("sent", None), ("sent", None)]
    assert set((await tally(database, Task.version)).keys()) <= {2, 3}
    clock.pass_(days=1)
    assert await smtp_worker.send() is None


@pytest.mark.heavy(on="mariadb")
async def test_refused_for_now_it_is_tried_again_with_backoff(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    sink.refuse({"bob@example.com": 450})
    await remind(database, people.alice, people.bob)
    await smtp_worker.tick()
    assert await smtp_worker.send() == {"sent": 1, "deferred": 1, "dead": 0, "handed_back": 0, "lost": 0}
    waits = []
    for attempt in range(1, 6):
        email = await one(database, Email, Email.state == "pending")
        assert (email.attempts, email.owner, email.lease_until) == (attempt, None, None)
        assert "450" in email.last_error
        wait = email.next_attempt_at - clock.now
        assert timedelta(seconds=10) <= wait <= timedelta(seconds=60 * 2 ** (attempt - 1))
        waits.append(wait)
        clock.now = email.next_attempt_at - timedelta(microseconds=1)
        assert await smtp_worker.send() is None
        clock.pass_(microseconds=1)
        if attempt < 5:
            assert (await smtp_worker.send() or {})["deferred"] == 1
    assert len(set(waits)) > 1
    assert (await one(database, Reminder, Reminder.user_id == people.bob.user_id)).state == "sending"
    sink.refuse({})
    assert (await smtp_worker.send() or {})["sent"] == 1
    assert (await one(database, Email, Email.recipient == "bob@example.com")).last_error is None
    assert await tally(database, Reminder.state) == {"sent": 2}
    assert recipients(sink) == ["alice@example.com", "bob@example.com"]


@pytest.mark.parametrize("fault", ["4xx", "away"])
async def test_after_three_days_it_is_dead(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock, fault: str
) -> None:
    if fault == "away":
        sink.go_away()
    else:
        sink.refuse_all(451)
    await remind(database, people.alice)
    await smtp_worker.work()
    clock.now = NOW + GIVE_UP_AFTER
    await smtp_worker.send()
    assert (await one(database, Email)).state == "pending"
    clock.pass_(hours=2)
    await smtp_worker.send()
    email, delivery, reminder = (
        await one(database, Email),
        await one(database, Delivery),
        await one(database, Reminder),
    )
    assert (email.state, email.attempts) == ("dead", 3 if fault == "4xx" else 0)
    assert email.last_error
    assert (delivery.state, delivery.reason) == (reminder.state, reminder.reason) == ("failed", "gave_up")
    clock.pass_(days=1)
    assert await smtp_worker.send() is None


# -- a server that is away -----------------------------------------------------------------------------------


@pytest.mark.heavy(on="mariadb")
async def test_while_the_server_is_away_tries_do_not_count_and_then_all_goes_out(
    database: Database, settings: Settings, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=60, people=5, fire_at=NOW)
    sink.go_away()
    await smtp_worker.tick()
    assert (await smtp_worker.send() or {})["sent"] == 0
    assert await tally(database, Email.state) == {"pending": 60}
    assert await tally(database, Email.attempts) == {0: 60}
    # The breaker is open: nothing is claimed, and no run is made of it.
    runs = await count(database, Run)
    assert await smtp_worker.send() is None
    assert await count(database, Run) == runs
    for _ in range(8):  # each time one probe
        clock.pass_(seconds=11)
        answer = await smtp_worker.send() or {}
        assert (answer["sent"], answer["dead"]) == (0, 0)
    assert await tally(database, Email.attempts) == {0: 60}
    sink.come_back()
    clock.pass_(seconds=11)
    for _ in range(5):
        await smtp_worker.send()
    assert await tally(database, Email.state) == {"sent": 60}
    assert await tally(database, Email.attempts) == {1: 60}
    assert await tally(database, Reminder.state) == {"sent": 60}
    assert sink.count() == 60 and len({message.message_id for message in sink.messages()}) == 60


async def test_an_answer_that_never_came_is_asked_for_again_under_the_same_id(
    database: Database, people: People, smtp_worker: Worker, sink: SinkProcess, clock: Clock
) -> None:
    """The one window left: the server has taken it, and the connection fell before its 250."""
    await remind(database, people.alice)
    sink.swallow(1)
    await smtp_worker.work()
    email = await one(database, Email)
    assert (email.state, email.attempts) == ("pending", 1)  # it counts: each such try may be a copy
    clock.now = email.next_attempt_at
    await smtp_worker.send()
    first, second = sink.messages()
    assert first == second._replace(wall=first.wall, monotonic=first.monotonic)
    assert (await one(database, Email)).state == "sent"


# -- a transport of ours: the far end ------------------------------------------------------------------------


@dataclass
class Scripted:
    """A far end that answers each address as it is told, and then takes everything."""

    answers: dict[str, list[Exception]]
    connections: int = 2
    description: str = "scripted"
    asked: int = 0
    two_asked: asyncio.Event = field(default_factory=asyncio.Event)
    taken: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def send(self, envelope: Envelope) -> None:
        self.asked += 1
        if self.asked == 2:
            self.two_asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if turns := self.answers.get(envelope.recipient):
            raise turns.pop(0)
        self.taken.append(envelope.recipient)

    async def check(self) -> None: ...

    async def close(self) -> None: ...


async def test_every_kind_of_failure_at_once(database: Database, settings: Settings, clock: Clock) -> None:
    names = ("alice", "bob", "carol", "dora", "frank")
    people = {name: await add_person(database, name) for name in names}
    await remind(database, *people.values())
    transport = Scripted(
        {
            "alice@example.com": [Refused("no such user", code=550)],
            "bob@example.com": [Deferred("busy", code=450), Refused("no, after all", code=554)],
            "carol@example.com": [RuntimeError("a fault of our own")],
            "dora@example.com": [ServerUnavailable("421 closing", code=421)],
        },
        connections=1,
    )
    worker = Worker(database, settings, clock, transport)
    await worker.tick()
    for _ in range(12):
        await worker.send()
        clock.pass_(minutes=2)
    states = {row.recipient.partition("@")[0]: (row.state, row.attempts) for row in await rows(database, Email)}
    assert states == {
        "alice": ("dead", 1),
        "bob": ("dead", 2),
        "carol": ("sent", 2),
        "dora": ("sent", 1),
        "frank": ("sent", 1),
    }
    assert sorted(transport.taken) == ["carol@example.com", "dora@example.com", "frank@example.com"]


async def test_told_to_stop_it_finishes_what_is_in_the_middle_and_hands_back_the_rest(
    database: Database, settings: Settings, clock: Clock
) -> None:
    await asyncio.to_thread(seed_due_reminders, settings.database_url, reminders=20, people=20, fire_at=NOW)
    transport = Scripted({}, gate=asyncio.Event())
    worker = Worker(database, settings, clock, transport)
    await worker.tick()
    run = asyncio.create_task(worker.send())
    async with asyncio.timeout(10):
        await transport.two_asked.wait()
    # All twenty are claimed by now, and two are in the middle of being sent.
    assert await tally(database, Email.state) == {"sending": 20}
    worker.sender.stop()
    assert transport.gate is not None
    transport.gate.set()
    assert await run == {"sent": 2, "deferred": 0, "dead": 0, "handed_back": 18, "lost": 0}
    assert await tally(database, Email.state) == {"sent": 2, "pending": 18}
    assert await tally(database, Email.attempts) == {1: 2, 0: 18}
    assert await worker.send() is None
    other = Worker(database, settings, clock, Scripted({}))
    assert (await other.send() or {})["sent"] == 18


# -- a folder instead of a server ----------------------------------------------------------------------------


async def test_many_first_messages_into_one_maildir_at_once(tmp_path: Path) -> None:
    """Workers that start: making the folders and clearing leftovers must not trip over others' files."""
    for attempt in range(12):
        transports = [MaildirTransport(tmp_path / str(attempt)) for _ in range(6)]
        letters = [
            (transport, Envelope(f"<{number}.{index}@x>", "a@x", "b@x", b"Subject: x\r\n\r\nx\r\n"))
            for index, transport in enumerate(transports)
            for number in range(4)
        ]
        await asyncio.gather(*(transport.send(envelope) for transport, envelope in letters))
        assert len(list((tmp_path / str(attempt) / "new").iterdir())) == 24
        for transport in transports:
            await transport.close()


async def test_a_firing_that_fails_ends_though_an_earlier_one_was_sent(
    database: Database, people: People, settings: Settings, clock: Clock
) -> None:
    """Sent, moved ahead, fired again, refused: the reminder must not stay on its way for ever."""
    await remind(database, people.alice)
    transport = Scripted({})
    worker = Worker(database, settings, clock, transport)
    await worker.work()
    reminder = await one(database, Reminder)
    assert reminder.state == "sent"
    again_at = clock.pass_(minutes=10)
    await set_(database, Reminder, reminder.id, state="pending", fire_at=again_at, sent_at=None)
    transport.answers["alice@example.com"] = [Refused("no such user", code=550)]
    await worker.work()
    assert (await one(database, Reminder)).state == "failed"
    assert await tally(database, Delivery.state) == {"sent": 1, "failed": 1}


async def test_the_link_of_a_verification_is_not_kept_once_it_is_sent(
    database: Database, settings: Settings, clock: Clock
) -> None:
    person = await add_person(database, "alice")
    async with database.write() as session:
        user = (await session.execute(select(User).where(User.id == person.user_id))).scalar_one()
        await send_verification(session, user=user, settings=settings, now=NOW)
    assert b"/act/verify?token=" in (await one(database, Email)).message.replace(b"=\r\n", b"")
    worker = Worker(database, settings, clock, Scripted({}))
    await worker.send()
    email = await one(database, Email)
    assert (email.state, email.message) == ("sent", b"")
