"""What most people would write: Celery, one task a reminder; row, EmailMessage, smtplib, row, commit.

    celery -A celery_reminders worker   works, with PEER_DATABASE, PEER_REDIS and PEER_SMTP_PORT
    python celery_reminders.py          queues the scan and prints {"began": seconds since 1970}

Tuned as far as settings go: no results, no events, a kept-open SMTP connection and database pool a process.
"""

from __future__ import annotations

import json
import os
import smtplib
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

import celery
from message import build
from sqlalchemy import String, create_engine, select
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

app = celery.Celery("reminders", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("PEER_PREFETCH", "4")),
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


class Base(DeclarativeBase):
    """The peer's tables; the benchmark makes and fills them."""


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    email: Mapped[str] = mapped_column(String(100))


class Reminder(Base):
    __tablename__ = "reminder"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int]
    title: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16))
    fire_at: Mapped[datetime] = mapped_column(DATETIME(fsp=6))
    sent_at: Mapped[datetime | None] = mapped_column(DATETIME(fsp=6))


@cache
def engine() -> Any:
    """One a process: made after the fork, at the first task."""
    return create_engine(os.environ["PEER_DATABASE"])


@cache
def smtp() -> smtplib.SMTP:
    """One kept-open connection a process."""
    return smtplib.SMTP("127.0.0.1", int(os.environ["PEER_SMTP_PORT"]), local_hostname="peer")


@app.task
def send_due() -> None:
    """What beat calls each minute: queue a task for every reminder that is due."""
    with Session(engine()) as session:
        due = select(Reminder.id).where(Reminder.status == "pending", Reminder.fire_at <= datetime.now(UTC))
        for identifier in session.scalars(due):
            send_reminder.delay(identifier)


@app.task
def send_reminder(identifier: int) -> None:
    """Send one reminder and note that it was sent."""
    with Session(engine()) as session:
        reminder = session.get(Reminder, identifier)
        if reminder is None or reminder.status != "pending":
            return
        person = session.get_one(Person, reminder.person_id)
        smtp().send_message(build(reminder.id, title=reminder.title, name=person.name, address=person.email))
        reminder.status = "sent"
        reminder.sent_at = datetime.now(UTC)
        session.commit()


if __name__ == "__main__":
    print(json.dumps({"began": time.time()}), flush=True)
    app.send_task("celery_reminders.send_due")
