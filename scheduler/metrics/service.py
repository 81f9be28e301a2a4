"""What the database says of the present: queues, workers, e-mails, reminders. Nothing here reads history."""

from __future__ import annotations

from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Select, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models import Email, Reminder, Run, Worker
from models.email import EmailState
from models.reminder import ReminderState
from models.run import UNFINISHED, RunState
from scheduler.metrics.counters import families, read_series
from scheduler.metrics.definitions import STORED
from scheduler.newest import index_of
from scheduler.reminders.times import LATE_AFTER
from scheduler.runs.jobs import QUEUES

MOST_COUNTED = 1_000_000
"""Of each kind; the index of so many is read in a tenth of a second."""
OLDEST_LOOKED_AT = 1000
ALIVE_WITHIN = timedelta(seconds=30)
"""Beats come every second; the clocks of two machines may differ a little."""

_READY = (RunState.QUEUED, RunState.QUARANTINED, RunState.DISPATCHED)
"""What could begin now: the age of what waits for a later moment, or for another run, says nothing."""
_UNTOLD = (ReminderState.PENDING, ReminderState.CLAIMED, ReminderState.SENDING)


async def read_service(session: AsyncSession, *, now: datetime) -> list[Metric]:
    """Everything, in six statements."""
    return [
        *families(STORED, await read_series(session)),
        *await _runs(session, now),
        *await _workers(session, now),
        *await _waiting(session, now),
    ]


async def _runs(session: AsyncSession, now: datetime) -> list[Metric]:
    depth = GaugeMetricFamily(
        "punctual_queue_depth", "Runs that have not begun, by their internal state.", labels=["queue", "state"]
    )
    running = GaugeMetricFamily("punctual_runs_running", "Runs that are under way.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "punctual_queue_oldest_seconds",
        "How long the oldest run has been waiting that could begin now; 0 where none is.",
        labels=["queue"],
    )
    states = [state.value for state in UNFINISHED]
    query = select(Run.state, Run.queue, func.count().label("number")).where(Run.state.in_(states))
    counts = {(row.queue, row.state): row.number for row in await session.execute(query.group_by(Run.state, Run.queue))}
    since = {row.queue: row.since for row in await session.execute(_oldest())}
    for queue in sorted({*QUEUES, *(queue for queue, _ in counts)}):
        for state in states:
            if state != RunState.RUNNING.value:
                depth.add_metric([queue, state], counts.get((queue, state), 0))
        running.add_metric([queue], counts.get((queue, RunState.RUNNING.value), 0))
        if queue in since:
            oldest.add_metric([queue], max(0.0, (now - since[queue]).total_seconds()))
        elif not any(counts.get((queue, state.value)) for state in _READY):
            oldest.add_metric([queue], 0)
        # Else a thousand older runs wait in other queues: that one is younger than they is all that is known.
    return [depth, running, oldest]


def _oldest() -> Select[tuple[str, datetime]]:
    """By queue, among the oldest of each state: one queue that is full must not make the others be searched for."""
    table = Run.__table__
    hint = f"FORCE INDEX ({index_of(table.c.queued_at, 'state')})"
    ends = [
        select(Run.queue, Run.queued_at)
        .with_hint(table, hint, "mysql")
        .where(Run.state == state.value)
        .order_by(Run.queued_at)
        .limit(OLDEST_LOOKED_AT)
        .subquery()
        for state in _READY
    ]
    found = union_all(*(select(end) for end in ends)).subquery()
    return select(found.c.queue, func.min(found.c.queued_at).label("since")).group_by(found.c.queue)


async def _workers(session: AsyncSession, now: datetime) -> list[Metric]:
    alive = Worker.heartbeat_at > now - ALIVE_WITHIN
    query = select(func.count().label("number"), func.sum(Worker.concurrency).label("slots")).where(alive)
    row = (await session.execute(query)).one()
    return [
        GaugeMetricFamily("punctual_workers", "Workers that are alive.", value=row.number),
        GaugeMetricFamily("punctual_worker_slots", "Runs that they may be at together.", value=row.slots or 0),
    ]


async def _waiting(session: AsyncSession, now: datetime) -> list[Metric]:
    states = (EmailState.PENDING, EmailState.SENDING, EmailState.DEAD)
    untold = Reminder.state.in_([state.value for state in _UNTOLD])
    due = Email.state == EmailState.PENDING.value
    parts = [
        *(_counted(state.value, select(literal(1)).where(Email.state == state.value)) for state in states),
        _counted("to_come", select(literal(1)).where(untold)),
        _counted("late", select(literal(1)).where(untold, Reminder.fire_at < now - LATE_AFTER)),
    ]
    found = {row.name: row.number for row in await session.execute(union_all(*parts))}
    first_due = (await session.execute(select(func.min(Email.next_attempt_at)).where(due))).scalar()
    emails = GaugeMetricFamily(
        "punctual_emails",
        f"E-mails that are not sent, by state (of each, up to {MOST_COUNTED} are counted).",
        labels=["state"],
    )
    for state in states:
        emails.add_metric([state.value], found[state.value])
    return [
        emails,
        GaugeMetricFamily(
            "punctual_email_due_seconds",
            "How long the e-mail has been due that has been due the longest.",
            value=max(0.0, (now - first_due).total_seconds()) if first_due else 0.0,
        ),
        GaugeMetricFamily("punctual_reminders_pending", "Reminders that are to go out.", value=found["to_come"]),
        GaugeMetricFamily(
            "punctual_reminders_late", "Of those, the ones that are late by more than a minute.", value=found["late"]
        ),
    ]


def _counted(name: str, query: Select[tuple[int]]) -> Select[tuple[str, int]]:
    some = query.limit(MOST_COUNTED).subquery()
    return select(literal(name).label("name"), func.count().label("number")).select_from(some)
