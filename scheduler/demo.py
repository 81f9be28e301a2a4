"""`punctual demo`: people, tasks and a reminder due in 20 seconds, made by the services that the API uses."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from models import Delivery, Email
from models.delivery import DeliveryState
from scheduler.access import Actor, Role
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.sign_up import add_user
from scheduler.clock import now
from scheduler.database import Database
from scheduler.mail.maildir import maildir_name
from scheduler.mail.transport import open_transport
from scheduler.reminders.rows import ReminderSpec
from scheduler.settings import Settings
from scheduler.tasks.create import create_task

DUE_AFTER_SECONDS = 20
WAIT_SECONDS = 40
"""How long to watch for the reminder, from its making on."""


async def run(database: Database, settings: Settings, *, say: Callable[[str], object], wait: bool) -> bool:
    """Make the demonstration and, with `wait`, watch its reminder go out. False if it did not within 40 s.

    Fresh people each time, so that it can be run again and again.
    """
    began = time.monotonic()
    transport = open_transport(settings.mail_url, data_dir=settings.data_dir)
    password, made = secrets.token_urlsafe(12), now()
    fire_at = (made + timedelta(seconds=DUE_AFTER_SECONDS)).replace(microsecond=0)
    passwords = Passwords()
    password_hash = await passwords.hash(password)
    passwords.close()
    mark = secrets.token_hex(3)
    anna_address, ben_address = f"demo-anna-{mark}@punctual.test", f"demo-ben-{mark}@punctual.test"
    async with database.write() as session:
        people = [
            await add_user(
                session,
                email=address,
                name=name,
                role=Role.USER,
                timezone=timezone,
                password_hash=password_hash,
                verified=True,
                now=made,
            )
            for address, name, timezone in (
                (anna_address, "Anna Demo", "Europe/Berlin"),
                (ben_address, "Ben Demo", "America/New_York"),
            )
        ]
        anna, ben = (
            Actor(user_id=person.id, role=Role.USER, timezone=person.timezone, email_verified=True) for person in people
        )
        tasks = demo_tasks(made=made, fire_at=fire_at, ben=ben.user_id)
        ids = [await create_task(session, actor=anna, values=values, now=made) for values in tasks]
    say(f"people    {anna_address} and {ben_address}; password of both: {password}")
    for values in tasks:
        say(f"task      {values['title']}")
    say(f"reminder  due {fire_at:%H:%M:%S} UTC, for {ben_address}")
    say(f"mail      {transport.description}")
    await transport.close()
    if not wait:
        return True
    say("waiting   …")
    sent = await _wait_until_sent(database, ids[0], began + WAIT_SECONDS)
    if sent is None:
        return False
    sent_at, message_id = sent
    late = (sent_at - fire_at).total_seconds()
    place = _place(transport.description, message_id)
    say(f"sent      {sent_at:%H:%M:%S} UTC, {late:.1f} s after it was due: {place}")
    return True


def demo_tasks(*, made: datetime, fire_at: datetime, ben: UUID) -> list[dict[str, Any]]:
    """What the demonstration makes; the first has the reminder."""
    return [
        {
            "title": "Water the plants 🌱",
            "description": "This reminder was made by `punctual demo`.",
            "priority": "high",
            "due_at": fire_at + timedelta(minutes=10),
            "assignee_ids": [ben],
            "reminders": [ReminderSpec(offset_minutes=None, remind_at=fire_at)],
        },
        {
            "title": "Send the invoice",
            "category": "Work",
            "due_at": made + timedelta(days=1),
            "reminders": [ReminderSpec(offset_minutes=30, remind_at=None)],
        },
        {"title": "Grandmother's birthday", "due_at": made + timedelta(days=7), "all_day": True},
        {"title": "Read a good book", "priority": "low"},
    ]


async def _wait_until_sent(database: Database, task_id: UUID, deadline: float) -> tuple[datetime, str] | None:
    """When the task's first delivery was sent, and its Message-ID; None if it was not until `deadline`."""
    query = (
        select(Delivery.sent_at, Email.message_id)
        .join(Email, Email.id == Delivery.email_id)
        .where(Delivery.task_id == task_id, Delivery.state == DeliveryState.SENT.value)
    )
    while time.monotonic() < deadline:
        async with database.read() as session:
            row = (await session.execute(query)).first()
        if row is not None and row.sent_at is not None:
            return row.sent_at, row.message_id
        await asyncio.sleep(0.2)
    return None


def _place(description: str, message_id: str) -> str:
    """Where the message is: its file if it went into a Maildir, else the server that took it."""
    scheme, _, folder = description.partition(":")
    if scheme != "maildir":
        return f"taken by {description}"
    name = maildir_name(message_id)
    found = [*Path(folder, "new").glob(name), *Path(folder, "cur").glob(f"{name}*")]
    return str(found[0]) if found else folder
