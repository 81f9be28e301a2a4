"""Firing what is due: schedules are claimed, their runs made, and the next firing set, all in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Row, bindparam, exists, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, Schedule, User
from models.run import RunState, RunTrigger
from models.schedule import Overlap
from scheduler.database import AFTER_COMMIT, Database, is_retryable, is_unavailable
from scheduler.logs import get_logger
from scheduler.runs.enqueue import NewRun, enqueue_many
from scheduler.runs.jobs import JOBS
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Outcome
from scheduler.schedules.cron import parse_cron
from scheduler.schedules.due import Firing, plan_firings
from scheduler.schedules.unfinished import log_end_after_commit, unfinished_runs

BATCH = 500
MISSED, OVERLAP, JOB_DISABLED = "missed", "overlap", "job_disabled"
"""Why a firing was skipped: `reason` in its run's result."""

log = get_logger("schedules")


class _Batch(NamedTuple):
    claimed: int
    runs: int


@dataclass(slots=True)
class _Plan:
    """The rows to write for one claim."""

    runs: list[NewRun] = field(default_factory=list)
    next_run_at: dict[UUID, datetime | None] = field(default_factory=dict)
    """By schedule."""
    unreadable: list[UUID] = field(default_factory=list)


async def fire_schedules(database: Database, *, now: datetime, limit: int = BATCH) -> int:
    """Make the runs of every firing whose time has come, and set each schedule's next firing. Returns how many runs.

    Any number of workers may call it at once: each firing has one row. A fixed number of statements for each `limit`
    schedules; one when nothing is due.
    """
    async with database.read() as session:
        if not (await session.execute(select(exists().where(*_due(now))))).scalar_one():
            return 0
    runs = 0
    while True:
        try:
            batch = await database.retry_write(lambda session: _fire(session, now=now, limit=limit))
        except Exception as error:
            if is_unavailable(error) or is_retryable(error):
                raise
            log.exception("schedules.fired_one_by_one")
            return runs + await _fire_one_by_one(database, now=now)
        runs += batch.runs
        if batch.claimed < limit:
            return runs


async def _fire_one_by_one(database: Database, *, now: datetime) -> int:
    """The same, so that what is wrong with one schedule stops none of the others; that one is disabled."""
    async with database.read() as session:
        query = select(Schedule.id).where(*_due(now)).order_by(Schedule.next_run_at)
        ids = (await session.execute(query)).scalars().all()
    runs = 0
    for schedule_id in ids:
        try:
            batch = await database.retry_write(
                lambda session, only=schedule_id: _fire(session, now=now, limit=1, only=only)  # type: ignore[misc]
            )
            runs += batch.runs
        except Exception as error:
            if is_unavailable(error) or is_retryable(error):
                raise
            log.exception("schedule.disabled", schedule_id=str(schedule_id))
            await database.retry_write(
                lambda session, only=schedule_id: _disable(session, [only], now)  # type: ignore[misc]
            )
    return runs


async def _fire(session: AsyncSession, *, now: datetime, limit: int, only: UUID | None = None) -> _Batch:
    """One claim.

    1. Lock the due schedules that nobody else is at (SKIP LOCKED; on SQLite the whole transaction is the lock).
    2. Look at what decides about them: who is active, which job is disabled, which schedule has an unfinished run.
    3. Make the runs, and set the next firing. Once this commits, no other worker sees the schedules as due.
    """
    query = (
        select(Schedule.__table__)
        .where(*_due(now), *([] if only is None else [Schedule.id == only]))
        .order_by(Schedule.next_run_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    schedules = (await session.execute(query)).all()
    if not schedules:
        return _Batch(0, 0)
    active = await _active(session, {row.user_id for row in schedules if row.user_id is not None})
    disabled = await _disabled_jobs(session, {row.job for row in schedules})
    busy = await _unfinished(session, schedules)
    plan = _Plan()
    for row in schedules:
        try:
            cron = parse_cron(row.cron, row.timezone, seconds=row.user_id is None)
        except ValueError as error:
            # An older version's, or changed by hand.
            log.error("schedule.unreadable", schedule_id=str(row.id), job=row.job, cron=row.cron, error=str(error))
            plan.unreadable.append(row.id)
            continue
        plan.next_run_at[row.id] = cron.next_after(now)
        if row.user_id is not None and row.user_id not in active:
            continue
        for firing in plan_firings(cron, missed=row.missed, next_run_at=row.next_run_at, now=now):
            new = _run(row, firing, in_the_way=busy.get(row.id), is_disabled=row.job in disabled)
            if new.state is not RunState.SKIPPED:
                busy[row.id] = new.id
            plan.runs.append(new)
            if firing.missed and new.state is not RunState.SKIPPED:
                _tell_of_missed(session, row, new, firing)
    made = await _make(session, plan.runs, now)
    if plan.next_run_at:
        await _set_next(session, plan.next_run_at)
    if plan.unreadable:
        await _disable(session, plan.unreadable, now)
    return _Batch(len(schedules), made)


def _run(row: Row[Any], firing: Firing, *, in_the_way: UUID | None, is_disabled: bool) -> NewRun:
    """The run of a firing: `in_the_way` is an unfinished one of the same schedule."""
    state = RunState.QUEUED
    result: dict[str, Any] | None = None
    if firing.is_left_out:
        state, result = RunState.SKIPPED, {"reason": MISSED, "missed": firing.missed}
    elif is_disabled:
        state, result = RunState.SKIPPED, {"reason": JOB_DISABLED}
    elif in_the_way is not None and row.overlap == Overlap.SKIP.value:
        state, result = RunState.SKIPPED, {"reason": OVERLAP, "run_id": str(in_the_way)}
    elif in_the_way is not None:
        state = RunState.BLOCKED
    return NewRun(
        job=row.job,
        trigger=RunTrigger.CRON,
        state=state,
        arguments=None if row.action is None else {"action": row.action},
        owner_id=row.user_id,
        schedule_id=row.id,
        scheduled_for=firing.scheduled_for,
        result=result,
    )


async def _make(session: AsyncSession, runs: Sequence[NewRun], now: datetime) -> int:
    """Make the runs; returns how many. The records of those that ended at once follow the commit."""
    made = await enqueue_many(session, runs, now=now)
    there: Sequence[NewRun] = runs
    if made < len(runs):
        query = select(Run.id).where(Run.id.in_([new.id for new in runs]))
        ids = set((await session.execute(query)).scalars())
        there = [new for new in runs if new.id in ids]
        # A firing that has its run already is left out for good. One of a job that is declared unique may have met a
        # run that somebody asked for since we looked.
        unique = [new for new in runs if new.id not in ids and new.state is not RunState.SKIPPED]
        busy = await _unique_runs(session, {new.job for new in unique})
        skipped = [
            replace(new, state=RunState.SKIPPED, result={"reason": OVERLAP, "run_id": str(busy[new.job])})
            for new in unique
            if new.job in busy
        ]
        made += await _make(session, skipped, now)
    for new in there:
        if new.state is RunState.SKIPPED:
            log_end_after_commit(session, _skipped(new, now))
    return made


def _skipped(new: NewRun, now: datetime) -> Outcome:
    run = RunningJob(
        id=new.id,
        job=new.job,
        trigger=new.trigger.value,
        attempt=0,
        started_at=now,
        worker="",
        owner_id=new.owner_id,
    )
    return Outcome(run, RunState.SKIPPED, now)


def _tell_of_missed(session: AsyncSession, row: Row[Any], new: NewRun, firing: Firing) -> None:
    """Say for how many firings this run stands; its arguments and its result are as ever."""
    fields = {"schedule_id": str(row.id), "run_id": str(new.id), "job": row.job, "missed": firing.missed}
    if row.user_id is not None:
        fields["user_id"] = str(row.user_id)
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("schedule.caught_up", **fields))


async def _active(session: AsyncSession, user_ids: Collection[UUID]) -> set[UUID]:
    """Those of these people whose schedules fire."""
    if not user_ids:
        return set()
    query = select(User.id).where(User.id.in_(user_ids), User.status == "active")
    return set((await session.execute(query)).scalars())


async def _disabled_jobs(session: AsyncSession, jobs: Collection[str]) -> set[str]:
    """Those of these jobs that an operator has disabled."""
    query = select(Schedule.job).where(Schedule.system_job.in_(jobs), Schedule.enabled.is_(False))
    return set((await session.execute(query)).scalars())


async def _unfinished(session: AsyncSession, schedules: Sequence[Row[Any]]) -> dict[UUID, UUID]:
    """The first unfinished run of each of these schedules that has one."""
    found = await unfinished_runs(
        session,
        [row.id for row in schedules],
        jobs={row.job for row in schedules},
        owners={row.user_id for row in schedules},
    )
    unique = {row.job for row in schedules if JOBS[row.job].is_unique}
    if unique:
        # Whatever asked for it: there is but one at a time.
        busy = await _unique_runs(session, unique)
        found |= {row.id: busy[row.job] for row in schedules if row.job in busy}
    return found


async def _unique_runs(session: AsyncSession, jobs: Collection[str]) -> dict[str, UUID]:
    """The unfinished run of each of these jobs that is declared unique and has one."""
    if not jobs:
        return {}
    query = select(Run.unique_key, Run.id).where(Run.unique_key.in_(jobs))
    return {row.unique_key: row.id for row in await session.execute(query)}


async def _set_next(session: AsyncSession, next_run_at: dict[UUID, datetime | None]) -> None:
    if session.get_bind().dialect.name == "mysql":
        rows = [
            {"id": schedule_id.hex} | ({"at": at.replace(tzinfo=None).isoformat(sep=" ")} if at is not None else {})
            for schedule_id, at in next_run_at.items()
        ]
        await session.execute(_SET_NEXT_FROM_JSON, {"rows": orjson.dumps(rows).decode()})
    else:
        connection = await session.connection()
        await connection.execute(_SET_NEXT, [{"schedule": key, "next": at} for key, at in next_run_at.items()])


async def _disable(session: AsyncSession, schedule_ids: Sequence[UUID], now: datetime) -> None:
    await session.execute(
        update(Schedule.__table__)
        .where(Schedule.id.in_(schedule_ids))
        .values(enabled=False, next_run_at=None, updated_at=now)
    )


def _due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    # What a newer version declares is left to its workers.
    return Schedule.next_run_at <= now, Schedule.job.in_(JOBS)


# One statement for any number of rows: the driver would send an UPDATE a row, each with a round trip.
_SET_NEXT_FROM_JSON = text(
    """
    UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
        schedule_id CHAR(32) PATH '$.id',
        next_run_at DATETIME(6) PATH '$.at'
    )) AS given STRAIGHT_JOIN schedule ON schedule.id = UNHEX(given.schedule_id)
    SET schedule.next_run_at = given.next_run_at
    """
)
_SET_NEXT = update(Schedule.__table__).where(Schedule.id == bindparam("schedule")).values(next_run_at=bindparam("next"))
