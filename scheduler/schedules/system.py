"""The service's own schedules: of each job that is declared with a cron, one row that operators change.

Jobs that fire by cron are claimed like any schedule (`fire.py`). Ticks every worker performs by itself; their rows only
say when and whether, so their `next_run_at` stays empty in the table, and `TickGate` answers for them in each worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from models import Schedule
from scheduler.errors import FieldError, Invalid, NotFound
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.runs.jobs import EVERY_SECOND, JOBS, Job, JobName
from scheduler.schedules.cron import Cron, parse_cron

NO_CRON = ""
"""In the row of a job that has no cron: it is there only to be disabled."""

log = get_logger("schedules")


@dataclass(frozen=True, slots=True)
class JobSchedule:
    """When a job of the service runs by itself."""

    cron: str | None
    """None: only when something asks for it."""
    timezone: str
    enabled: bool
    next_run_at: datetime | None


async def ensure_system_schedules(session: AsyncSession, *, now: datetime) -> None:
    """Have a row for each job that is declared with a cron. Any number of workers may do so at once, when they start.

    A row that no operator has touched follows the declaration, which another version may have changed.
    """
    wanted = {job.name: _row(job, now) for job in JOBS.values() if job.cron is not None}
    query = select(Schedule.__table__).where(Schedule.system_job.in_(wanted))
    present = {row.system_job: row for row in await session.execute(query)}
    missing = [row for name, row in wanted.items() if name not in present]
    if missing:
        await _insert(session, missing)
    for name, row in present.items():
        following = {key: wanted[name][key] for key in ("cron", "timezone", "overlap", "missed")}
        if any(getattr(row, key) != value for key, value in following.items()):
            await session.execute(
                update(Schedule)
                .where(Schedule.id == row.id, Schedule.updated_at == Schedule.created_at)
                .values(**following, next_run_at=wanted[name]["next_run_at"])
            )


async def job_schedules(session: AsyncSession, *, now: datetime) -> dict[str, JobSchedule]:
    """When each declared job runs by itself, by name, in one statement."""
    query = select(Schedule.__table__).where(Schedule.system_job.is_not(None))
    rows = {row.system_job: row for row in await session.execute(query)}
    return {job.name: _job_schedule(job, rows.get(job.name), now) for job in JOBS.values()}


async def change_job(session: AsyncSession, *, name: str, changes: Mapping[str, Any], now: datetime) -> JobSchedule:
    """Change when a job runs by itself: `cron` (five fields, or six with the second first), `enabled`, or both.

    Counts from now: nothing that was missed while it was disabled is made up for. A disabled job still does what it is
    asked for ("run now"). Jobs without a cron run only when something asks for them and have nothing to change, but
    for `run_schedule`: while it is disabled, the firings of people's schedules are skipped, visibly.
    Raises `NotFound` (no such job), `Invalid` (pointing at /cron or /enabled).
    """
    job = JOBS.get(name)
    if job is None:
        raise NotFound()
    cron, enabled = changes.get("cron", ...), changes.get("enabled", ...)
    if job.cron is None:
        _check_without_cron(job, cron, enabled)
    query = select(Schedule.__table__).where(Schedule.system_job == name).with_for_update()
    row = (await session.execute(query)).one_or_none()
    if row is None:
        await _insert(session, [_row(job, now)])
        row = (await session.execute(query)).one()
    values: dict[str, Any] = {}
    if cron is not ... and job.cron is not None:
        if cron is None:
            raise Invalid(
                FieldError("/cron", "must be a cron expression; to stop the job, send enabled: false", "required")
            )
        values["cron"] = _readable(cron, row.timezone, now).expression
    if enabled is not ...:
        if not isinstance(enabled, bool):
            raise Invalid(FieldError("/enabled", "must be true or false"))
        values["enabled"] = enabled
    values = {key: value for key, value in values.items() if getattr(row, key) != value}
    if values:
        after = {**row._mapping, **values}
        next_run_at = _next_claim(job, after["cron"], after["timezone"], now) if after["enabled"] else None
        await session.execute(
            update(Schedule)
            .where(Schedule.id == row.id)
            # Later than `created_at` whatever the clock says: that is how one sees that it was changed.
            .values(**values, next_run_at=next_run_at, updated_at=max(now, row.created_at + timedelta(microseconds=1)))
        )
        row = (await session.execute(query)).one()
    return _job_schedule(job, row, now)


class TickGate:
    """Says in a worker whether a tick's own schedule has a firing now.

    It is asked for each tick, each second; the database is asked once a second for all of them (`refresh`), and while
    it is away, what was last known holds: at first what is declared.
    """

    def __init__(self) -> None:
        self._crons: dict[str, Cron | None] = {
            job.name: parse_cron(job.cron, job.timezone, seconds=True)
            for job in JOBS.values()
            if job.is_tick and job.cron
        }
        """None: disabled."""
        self._unreadable: set[str] = set()

    async def refresh(self, session: AsyncSession) -> None:
        """Read what operators have set. One statement."""
        columns = (Schedule.system_job, Schedule.cron, Schedule.timezone, Schedule.enabled)
        rows = (await session.execute(select(*columns).where(Schedule.system_job.is_not(None)))).all()
        for row in rows:
            if row.system_job in self._crons:
                self._take(row)

    def is_open(self, job_name: str, *, since: datetime, until: datetime) -> bool:
        """Whether the job is enabled and a firing of its cron lies in (since, until]."""
        cron = self._crons.get(job_name)
        if cron is None:
            return False
        if cron.expression == EVERY_SECOND:
            return until.replace(microsecond=0) > since
        return cron.is_due_between(since, until)

    def _take(self, row: Row[Any]) -> None:
        try:
            self._crons[row.system_job] = parse_cron(row.cron, row.timezone, seconds=True) if row.enabled else None
        except ValueError as error:
            # Another version's, or changed by hand: what was last known holds, as a tick that stops loses reminders.
            if row.cron not in self._unreadable:
                self._unreadable.add(row.cron)
                log.error("schedule.unreadable", job=row.system_job, cron=row.cron, error=str(error))


def _check_without_cron(job: Job, cron: Any, enabled: Any) -> None:
    if cron is not ... and cron is not None:
        raise Invalid(FieldError("/cron", f"{job.name} has no schedule: it runs only when something asks for it"))
    if enabled is not ... and job.name != JobName.RUN_SCHEDULE:
        raise Invalid(FieldError("/enabled", f"{job.name} has no schedule: it runs only when something asks for it"))


def _readable(expression: str, timezone: str, now: datetime) -> Cron:
    try:
        cron = parse_cron(expression, timezone, seconds=True)
    except ValueError as error:
        raise Invalid(FieldError("/cron", str(error))) from None
    if cron.next_after(now) is None:
        raise Invalid(FieldError("/cron", "never fires"))
    return cron


def _next_claim(job: Job, expression: str, timezone: str, now: datetime) -> datetime | None:
    """What stands in `next_run_at`: nothing for what `fire.py` must not claim."""
    if job.is_tick or expression == NO_CRON:
        return None
    return parse_cron(expression, timezone, seconds=True).next_after(now)


def _job_schedule(job: Job, row: Row[Any] | None, now: datetime) -> JobSchedule:
    """As it stands, or as it will once the first worker has started."""
    expression, timezone, enabled = (
        (job.cron or NO_CRON, job.timezone, True) if row is None else (row.cron, row.timezone, row.enabled)
    )
    next_run_at = None
    if enabled and expression != NO_CRON:
        with suppress(ValueError):  # shown as it stands; `TickGate` and `fire_schedules` tell of it
            next_run_at = parse_cron(expression, timezone, seconds=True).next_after(now)
    return JobSchedule(expression or None, timezone, enabled, next_run_at)


def _row(job: Job, now: datetime) -> dict[str, Any]:
    cron = job.cron or NO_CRON
    return {
        "id": new_id(),
        "user_id": None,
        "system_job": job.name,
        "job": job.name,
        "name": job.name,
        "cron": cron,
        "timezone": job.timezone,
        "action": None,
        "enabled": True,
        "overlap": job.overlap.value,
        "missed": job.missed.value,
        "next_run_at": _next_claim(job, cron, job.timezone, now),
        "created_at": now,
        "updated_at": now,
    }


async def _insert(session: AsyncSession, rows: list[dict[str, Any]]) -> None:
    """Insert; what another process has inserted meanwhile stays as it is."""
    table = Schedule.__table__
    if session.get_bind().dialect.name == "mysql":
        await session.execute(mysql.insert(table).on_duplicate_key_update(id=table.c.id), rows)
    else:
        await session.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)
