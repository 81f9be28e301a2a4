"""How jobs have been doing: counts of the last day, and how long their runs take. Bounded, however much there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState
from scheduler.newest import count_up_to, index_of

PERIOD = timedelta(hours=24)
MOST_COUNTED = 1_000_000
"""Runs of one job that are counted: some tenths of a second."""
MOST_FAILURES = 100_000
"""Of all jobs together."""
SAMPLE = 1_000
"""Durations are those of so many of a job's newest finished runs, looked for among so many of its newest runs:"""
MOST_LOOKED_AT = 3_000

_FAILED = (RunState.FAILED.value, RunState.LOST.value)
_RAN = (RunState.SUCCEEDED.value, RunState.FAILED.value)
_TABLE = Run.__table__


@dataclass(frozen=True, slots=True)
class JobStatistics:
    """Of one job's runs that were asked for within 24 hours. Durations are milliseconds, None where nothing ran."""

    runs: int = 0
    failures: int = 0
    """Those that failed or were lost."""
    p50_ms: int | None = None
    p99_ms: int | None = None


async def read_statistics(session: AsyncSession, *, jobs: Sequence[str], now: datetime) -> dict[str, JobStatistics]:
    """For each of these jobs, in three statements."""
    if not jobs:
        return {}
    since = now - PERIOD
    counted = count_up_to(_TABLE.c.job, at=_TABLE.c.queued_at, most=dict.fromkeys(jobs, MOST_COUNTED), since=since)
    runs = {row.value: row[1] for row in await session.execute(counted)}
    failures = {row.job: row[1] for row in await session.execute(_failures(since))}
    durations: dict[str, list[int]] = {job: [] for job in jobs}
    for row in await session.execute(union_all(*(_durations(job, since) for job in jobs))):
        durations[row.job].append(row.duration_ms)
    return {
        job: JobStatistics(
            runs=runs.get(job, 0),
            failures=failures.get(job, 0),
            p50_ms=percentile(durations[job], 50),
            p99_ms=percentile(durations[job], 99),
        )
        for job in jobs
    }


def percentile(values: Sequence[int], percent: int) -> int | None:
    """The smallest value that `percent` of 100 of them do not exceed (nearest rank); None of nothing."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(rank, 1) - 1]


def _failures(since: datetime) -> Select[tuple[str, int]]:
    some = (
        select(_TABLE.c.job)
        .with_hint(_TABLE, _hint("state"), "mysql")
        .where(_TABLE.c.state.in_(_FAILED), _TABLE.c.queued_at >= since)
        .limit(MOST_FAILURES)
        .subquery()
    )
    return select(some.c.job, func.count()).group_by(some.c.job)


def _durations(job: str, since: datetime) -> Select[tuple[str, int]]:
    newest = (
        select(_TABLE.c.state, _TABLE.c.duration_ms)
        .with_hint(_TABLE, _hint("job"), "mysql")
        .where(_TABLE.c.job == job, _TABLE.c.queued_at >= since)
        .order_by(_TABLE.c.queued_at.desc())
        .limit(MOST_LOOKED_AT)
        .subquery()
    )
    ran = (
        select(literal(job).label("job"), newest.c.duration_ms)
        .where(newest.c.state.in_(_RAN), newest.c.duration_ms.is_not(None))
        .limit(SAMPLE)
        .subquery()
    )
    return select(ran.c.job, ran.c.duration_ms)


def _hint(leading: str) -> str:
    return f"FORCE INDEX ({index_of(_TABLE.c.queued_at, leading)})"
