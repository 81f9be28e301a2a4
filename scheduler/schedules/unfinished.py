"""The runs of schedules that have not ended: found by the dispatcher's index, whatever else there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import UNFINISHED, RunState
from scheduler.database import AFTER_COMMIT
from scheduler.runs.jobs import JOBS
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Outcome, log_end

UNBEGUN = tuple(state for state in UNFINISHED if state is not RunState.RUNNING)


async def unfinished_runs(
    session: AsyncSession, schedule_ids: Collection[UUID], *, jobs: Collection[str], owners: Collection[UUID | None]
) -> dict[UUID, UUID]:
    """The first unfinished run of each of these schedules that has one; `jobs` and `owners` are the schedules'."""
    query = _runs(select(Run.schedule_id, Run.id), UNFINISHED, schedule_ids, jobs, owners).order_by(Run.id.desc())
    return {row.schedule_id: row.id for row in await session.execute(query)}


async def cancel_unbegun(session: AsyncSession, *, schedule_id: UUID, job: str, owner_id: UUID, now: datetime) -> int:
    """Cancel the runs of a schedule that nobody has begun. Returns how many."""
    columns = select(Run.id, Run.job, Run.trigger, Run.attempt, Run.request_id)
    query = _runs(columns, UNBEGUN, [schedule_id], [job], [owner_id]).with_for_update()
    rows = (await session.execute(query)).all()
    if not rows:
        return 0
    await session.execute(
        update(Run.__table__)
        .where(Run.id.in_([row.id for row in rows]))
        .values(
            state=RunState.CANCELLED.value,
            cancel_requested_at=now,
            finished_at=now,
            duration_ms=0,
            available_at=None,
            unique_key=None,
            seq=Run.seq + 1,
        )
    )
    for row in rows:
        run = RunningJob(
            id=row.id,
            job=row.job,
            trigger=row.trigger,
            attempt=row.attempt,
            started_at=now,
            worker="",
            owner_id=owner_id,
            request_id=row.request_id,
        )
        log_end_after_commit(session, Outcome(run, RunState.CANCELLED, now))
    return len(rows)


def log_end_after_commit(session: AsyncSession, outcome: Outcome) -> None:
    """The one record that a run ends in, of a run that ended without having begun; a rollback leaves none."""
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log_end(outcome))


def _runs(
    columns: Select[Any],
    states: Iterable[RunState],
    schedule_ids: Collection[UUID],
    jobs: Collection[str],
    owners: Collection[UUID | None],
) -> Select[Any]:
    """Looks only at runs of these owners in these states: neither a schedule's long history nor what others have queued
    costs anything."""
    declared = [JOBS[name] for name in jobs]
    persons = [owner for owner in owners if owner is not None]
    owned: list[ColumnElement[bool]] = [Run.owner_id.in_(persons)] if persons else []
    if len(persons) < len(owners):
        owned.append(Run.owner_id.is_(None))
    return columns.with_hint(Run.__table__, f"FORCE INDEX ({_INDEX})", "mysql").where(
        Run.state.in_([state.value for state in states]),
        Run.queue.in_(sorted({job.queue for job in declared})),
        Run.priority.in_(sorted({job.priority for job in declared})),
        or_(*owned),
        # Not the bare column: SQLite would walk the schedule's history.
        func.coalesce(Run.schedule_id, Run.id).in_(schedule_ids),
    )


_INDEX = next(
    str(index.name)
    for index in Run.__table__.indexes
    if [column.key for column in index.columns] == ["state", "queue", "priority", "owner_id"]
)
