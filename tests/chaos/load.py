"""What is there before the chaos begins: people, their schedules, and reminders that become due over the time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, insert, update

from models import Reminder, Schedule, Task, User
from models.schedule import Missed, Overlap
from scheduler.identifiers import new_id
from scheduler.runs.jobs import JobName
from tests.chaos.plan import Plan
from tests.factories import reminder_row, task_row, user_row

PREFIX = "chaos"
"""Of the titles of all tasks that runs create: `chaos-<kind>-<number>`."""


class Kind:
    """The kinds of runs that create tasks, as their titles name them."""

    PLAIN = "plain"
    """Asked for once: a transaction that seems to have failed is not tried again."""
    KEYED = "keyed"
    """With an idempotency key, asked for again until it is known to stand."""
    CANCELLED = "cancelled"
    """Asked for, and cancelled a moment later: it may have been done before."""
    QUEUED = "queued"
    """Firings of a schedule that wait for each other."""
    MINUTELY = "minutely"
    """Firings that the service itself makes of schedules."""


def title(kind: str, number: int) -> str:
    """Of the task that a run creates."""
    return f"{PREFIX}-{kind}-{number}"


def create_task(of_title: str) -> dict[str, Any]:
    """The arguments of a run that creates this task."""
    return {"action": {"type": "create_task", "task": {"title": of_title}}}


class Ground(NamedTuple):
    """What others need to know of it."""

    people: list[UUID]
    queues: list[UUID]
    """The schedules whose runs wait for each other."""


def prepare(engine: Engine, plan: Plan) -> Ground:
    """Put it all into the database."""
    at = datetime.now(UTC) - timedelta(days=1)
    people = [user_row(f"person-{number}", at=at) for number in range(plan.people)]
    with engine.begin() as connection:
        connection.execute(insert(User.__table__), people)
    owners = [person["id"] for person in people]
    queues = [
        _schedule(owners[number], f"queue {number}", overlap=Overlap.QUEUE, enabled=False, action=None)
        for number in range(plan.queues)
    ]
    minutely = [
        _schedule(
            owners[-1 - number],
            f"each minute {number}",
            overlap=Overlap.SKIP,
            enabled=True,
            action=create_task(title(Kind.MINUTELY, number))["action"],
        )
        for number in range(plan.minutely)
    ]
    with engine.begin() as connection:
        connection.execute(insert(Schedule.__table__), queues + minutely)
    return Ground(owners, [schedule["id"] for schedule in queues])


def add_reminders(engine: Engine, plan: Plan, people: list[UUID]) -> None:
    """Reminders that become due from now on, evenly over nine tenths of the time.

    A person has at most five, so that even if all were late, each would be an e-mail by itself (semantics.md, 3.5).
    """
    assert plan.emails <= 5 * len(people)
    rng = random.Random(f"{plan.seed}/reminders")
    now = datetime.now(UTC)
    tasks, reminders = [], []
    for number in range(plan.emails):
        fire_at = now + timedelta(seconds=rng.uniform(0, 0.9 * plan.seconds))
        owner = people[number % len(people)]
        task = task_row(
            owner, at=now - timedelta(days=1), title=f"Task {number}", due_at=fire_at + timedelta(minutes=30)
        )
        tasks.append(task)
        reminders.append(reminder_row(task["id"], owner, fire_at, offset_minutes=30))
    with engine.begin() as connection:
        for table, rows in ((Task, tasks), (Reminder, reminders)):
            for part in _parts(rows, 1000):
                connection.execute(insert(table.__table__), part)


def pause_schedules(engine: Engine) -> None:
    """No person's schedule fires any more."""
    paused = update(Schedule.__table__).where(Schedule.user_id.is_not(None)).values(enabled=False, next_run_at=None)
    with engine.begin() as connection:
        connection.execute(paused)


def _schedule(
    owner: UUID, name: str, *, overlap: Overlap, enabled: bool, action: dict[str, Any] | None
) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": new_id(),
        "user_id": owner,
        "system_job": None,
        "job": JobName.RUN_SCHEDULE.value,
        "name": name,
        "cron": "* * * * *",
        "timezone": "UTC",
        "action": action,
        "enabled": enabled,
        "overlap": overlap.value,
        "missed": Missed.ONCE.value,
        "next_run_at": (now + timedelta(minutes=1)).replace(second=0, microsecond=0) if enabled else None,
        "created_at": now,
        "updated_at": now,
    }


def _parts(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
