"""Rows for tests and benchmarks: people, tasks and reminders, straight into the database, past the services.

Names carry access: alice owns, bob is assigned, carol has nothing, dora is a manager, eve is an admin.
No pytest in here: the benchmark and the fault tests use it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import NullPool, create_engine, insert, make_url

from models import Base, Reminder, Task, TaskAssignee, TaskShare, User
from scheduler.access import Actor, Role
from scheduler.accounts.names import folded
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.reminders.rows import ReminderSpec

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
"""A Monday noon: the present in tests that pass `now` themselves."""

ROWS_A_STATEMENT = 5000


class People(NamedTuple):
    """One person for each kind of access."""

    alice: Actor
    bob: Actor
    carol: Actor
    dora: Actor
    eve: Actor


ROLES = {"dora": Role.MANAGER, "eve": Role.ADMIN}


# -- values --------------------------------------------------------------------------------------------------


def actor(user: dict[str, Any]) -> Actor:
    """The actor for a row of `user_row`."""
    return Actor(
        user_id=user["id"],
        role=Role(user["role"]),
        timezone=user["timezone"],
        email_verified=user["email_verified_at"] is not None,
    )


def user_row(name: str, *, at: datetime = NOW, **columns: Any) -> dict[str, Any]:
    """A person `name`@example.com who is active, verified, and can't sign in (no password)."""
    row: dict[str, Any] = {
        "id": new_id(),
        "email": f"{name.lower()}@example.com",
        "name": name.capitalize(),
        "role": Role.USER.value,
        "status": "active",
        "password_hash": None,
        "email_verified_at": at,
        "phone": None,
        "phone_verified_at": None,
        "bio": "",
        "timezone": "UTC",
        "locale": "en",
        "created_at": at,
        "updated_at": at,
    } | columns
    return {"name_folded": folded(row["name"])} | row


def task_row(creator_id: UUID, *, at: datetime = NOW, **columns: Any) -> dict[str, Any]:
    """An open task without a due time."""
    return {
        "id": new_id(),
        "creator_id": creator_id,
        "title": "Water the plants",
        "description": "",
        "status": "todo",
        "priority": 2,
        "category": None,
        "due_at": None,
        "all_day": False,
        "timezone": "UTC",
        "completed_at": None,
        "created_at": at,
        "updated_at": at,
        "deleted_at": None,
        "version": 1,
    } | columns


def assignee_row(task_id: UUID, user_id: UUID, *, at: datetime = NOW) -> dict[str, Any]:
    """A task assigned to somebody."""
    return {"task_id": task_id, "user_id": user_id, "assigned_at": at}


def share_row(task_id: UUID, user_id: UUID, permission: str, *, at: datetime = NOW) -> dict[str, Any]:
    """A task shared with somebody, to `view` or to `edit`."""
    return {"task_id": task_id, "user_id": user_id, "permission": permission, "shared_at": at}


def reminder_row(task_id: UUID, user_id: UUID, fire_at: datetime, **columns: Any) -> dict[str, Any]:
    """A pending reminder at an absolute time, for the assignees."""
    return {
        "id": new_id(),
        "task_id": task_id,
        "user_id": user_id,
        "audience": "assignees",
        "offset_minutes": None,
        "fire_at": fire_at,
        "state": "pending",
        "reason": None,
        "sent_at": None,
        "owner": None,
        "lease_until": None,
        "seq": 0,
        "created_at": fire_at - timedelta(days=1),
    } | columns


def run_row(at: datetime = NOW, **columns: Any) -> dict[str, Any]:
    """A run that was asked for, done and ended well, all at one instant."""
    return {
        "id": new_id(),
        "job": "cleanup",
        "trigger": "cron",
        "state": "succeeded",
        "queue": "default",
        "priority": 1,
        "owner_id": None,
        "arguments": None,
        "schedule_id": None,
        "scheduled_for": None,
        "attempt": 1,
        "max_attempts": 1,
        "seq": 1,
        "queued_at": at,
        "started_at": at,
        "finished_at": at,
        "duration_ms": 0,
        "worker": "worker",
        "progress_done": 0,
        "progress_total": 0,
        "result": {},
        "error": None,
        "request_id": None,
    } | columns


def email_row(at: datetime = NOW, **columns: Any) -> dict[str, Any]:
    """An e-mail that was sent when it was written."""
    email_id = new_id()
    return {
        "id": email_id,
        "message_id": f"<{email_id.hex}@example.com>",
        "user_id": None,
        "sender": "punctual@example.com",
        "recipient": "alice@example.com",
        "subject": "Reminder: Water the plants",
        "template": "reminder",
        "message": b"Subject: Reminder\r\n\r\nWater the plants\r\n",
        "state": "sent",
        "attempts": 1,
        "next_attempt_at": at,
        "sent_at": at,
        "last_error": None,
        "created_at": at,
    } | columns


def before(offset_minutes: int, *, audience: str = "assignees") -> ReminderSpec:
    """A reminder so many minutes before the due time."""
    return ReminderSpec(offset_minutes, None, audience)


def at(remind_at: datetime, *, audience: str = "assignees") -> ReminderSpec:
    """A reminder at a fixed time."""
    return ReminderSpec(None, remind_at, audience)


# -- into a database -----------------------------------------------------------------------------------------


async def add_people(database: Database, **columns: Any) -> People:
    """Alice to Eve; `columns` hold for all of them."""
    rows = [user_row(name, **{"role": ROLES.get(name, Role.USER).value} | columns) for name in People._fields]
    async with database.write() as session:
        await session.execute(insert(User), rows)
    return People(*map(actor, rows))


async def add_person(database: Database, name: str, **columns: Any) -> Actor:
    """One more person."""
    row = user_row(name, **columns)
    async with database.write() as session:
        await session.execute(insert(User), [row])
    return actor(row)


async def add_task(
    database: Database,
    creator: Actor,
    *,
    assignees: Iterable[Actor] = (),
    shared_with: Iterable[tuple[Actor, str]] = (),
    **columns: Any,
) -> UUID:
    """A task by `creator`, assigned to `assignees`, shared with people for a permission each; returns its id."""
    row = task_row(creator.user_id, **columns)
    assigned = [assignee_row(row["id"], each.user_id) for each in assignees]
    shared = [share_row(row["id"], each.user_id, permission) for each, permission in shared_with]
    async with database.write() as session:
        await session.execute(insert(Task), [row])
        if assigned:
            await session.execute(insert(TaskAssignee), assigned)
        if shared:
            await session.execute(insert(TaskShare), shared)
    return UUID(str(row["id"]))


async def add_reminder(database: Database, task_id: UUID, user: Actor, fire_at: datetime, **columns: Any) -> UUID:
    """A reminder of a task, set by `user`; returns its id."""
    row = reminder_row(task_id, user.user_id, fire_at, **columns)
    async with database.write() as session:
        await session.execute(insert(Reminder), [row])
    return UUID(str(row["id"]))


async def add_rows(database: Database, model: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Rows of any table, as they are; all with the same columns."""
    async with database.write() as session:
        await session.execute(insert(model.__table__), list(rows))


def seed_due_reminders(database_url: str, *, reminders: int, people: int, fire_at: datetime) -> Sequence[UUID]:
    """Put in pending reminders for `fire_at`, each of a task of its own, spread evenly over new people.

    Takes any URL of `Settings.database_url` and inserts in bulk through the synchronous driver: 20,000 take
    about two seconds. Returns the reminders' ids. The people are person-0@example.com, person-1@example.com
    and so on, so one database can be seeded but once.
    """
    users = [user_row(f"person-{number}", at=fire_at - timedelta(days=1)) for number in range(people)]
    tasks = [
        task_row(
            users[number % people]["id"],
            at=fire_at - timedelta(days=1),
            title=f"Task {number} 🪴",
            description="Two lines\nof what is to do.",
            due_at=fire_at + timedelta(minutes=30),
        )
        for number in range(reminders)
    ]
    rows = [reminder_row(task["id"], task["creator_id"], fire_at, offset_minutes=30) for task in tasks]
    url = make_url(database_url)
    driver = "mysql+pymysql" if url.get_backend_name() in ("mysql", "mariadb") else "sqlite"
    engine = create_engine(url.set(drivername=driver), poolclass=NullPool)
    with engine.begin() as connection:
        for table, each in ((User, users), (Task, tasks), (Reminder, rows)):
            for start in range(0, len(each), ROWS_A_STATEMENT):
                connection.execute(insert(table.__table__), each[start : start + ROWS_A_STATEMENT])
    engine.dispose()
    return [row["id"] for row in rows]
