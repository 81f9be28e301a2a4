"""Jobs as operators see them: what is declared, when it runs by itself, its last run, and how it has been doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Schedule
from scheduler.errors import NotFound
from scheduler.paging import Page, decode_cursor, encode_cursor
from scheduler.runs.jobs import JOBS, Job
from scheduler.runs.read import last_runs
from scheduler.runs.statistics import JobStatistics, read_statistics
from scheduler.schedules.system import JobSchedule, job_schedules


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job with what its answer shows."""

    job: Job
    schedule: JobSchedule
    last_run: Row[Any] | None
    statistics: JobStatistics


async def list_jobs(
    session: AsyncSession, *, now: datetime, limit: int, cursor: str | None = None, count: bool = False
) -> Page[JobDetails]:
    """Every declared job, by name, in a fixed number of statements. Raises `BadCursor`."""
    names = sorted(JOBS)
    after = decode_cursor(cursor, str)[0] if cursor else ""
    rest = [name for name in names if name > after]
    items = await _details(session, rest[:limit], now)
    return Page(items, encode_cursor(rest[limit - 1]) if len(rest) > limit else None, len(names) if count else None)


async def get_job(session: AsyncSession, *, name: str, now: datetime, for_update: bool = False) -> JobDetails:
    """One job; `for_update` holds its schedule until the transaction ends. Raises `NotFound`."""
    if name not in JOBS:
        raise NotFound()
    if for_update:
        await session.execute(select(Schedule.id).where(Schedule.system_job == name).with_for_update())
    (details,) = await _details(session, [name], now)
    return details


async def _details(session: AsyncSession, names: Sequence[str], now: datetime) -> list[JobDetails]:
    schedules = await job_schedules(session, now=now)
    newest = await last_runs(session, jobs=names)
    statistics = await read_statistics(session, jobs=names, now=now)
    return [JobDetails(JOBS[name], schedules[name], newest.get(name), statistics[name]) for name in names]
