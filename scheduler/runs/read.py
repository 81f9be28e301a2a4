"""Reading runs and the attempts at them. Lists stay as quick as they are, however long history grows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, RunAttempt
from models.run import UNFINISHED, RunState, RunTrigger
from scheduler.errors import NotFound
from scheduler.newest import LOOKED_AT, NOTHING_BELOW, Filters, conditions_of, floor, given, newest, newest_of_each
from scheduler.paging import Page, after, decode_cursor, encode_cursor

FIRST_LOOK = 2_000
"""Rows that a page of several filters looks at first: some milliseconds."""

_TABLE = Run.__table__
QUEUED_STATES = tuple(state for state in UNFINISHED if state is not RunState.RUNNING)
"""The states that are `queued` to clients."""


class Attempt(NamedTuple):
    """One attempt at a run: how an earlier one ended, or how the present one stands."""

    number: int
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    state: str
    """As clients see it."""
    error: Any


def public_state(state: str) -> str:
    """The state that clients see."""
    return RunState.QUEUED.value if state in QUEUED_STATES else state


async def list_runs(
    session: AsyncSession,
    *,
    owner_id: UUID | None = None,
    schedule_id: UUID | None = None,
    jobs: Sequence[str] = (),
    states: Sequence[str] = (),
    triggers: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int,
    cursor: str | None = None,
    count: bool = False,
    looked_at: int = LOOKED_AT,
) -> Page[Row[Any]]:
    """Runs, newest first; `owner_id`: those that this person caused. `states` are those that clients see.

    `since` (inclusive) and `until` (exclusive) are on `queued_at`. With several filters a page looks at `looked_at`
    runs at the most; it may be short then, and the next goes on from there. Raises `BadCursor`.
    """
    filters = given(
        schedule_id=[] if schedule_id is None else [schedule_id],
        owner_id=[] if owner_id is None else [owner_id],
        job=jobs,
        state=_stored_states(states),
        trigger=triggers,
    )
    between: list[ColumnElement[bool]] = []
    if since:
        between.append(Run.queued_at >= since)
    if until:
        between.append(Run.queued_at < until)
    total = None
    if count:
        counted = select(func.count()).select_from(Run).where(*between)
        total = (await session.execute(counted.where(*conditions_of(_TABLE, filters)))).scalar_one()
    if cursor:
        queued_at, run_id = decode_cursor(cursor, datetime, UUID)
        between.append(after((Run.queued_at.expression, queued_at, True), (Run.id.expression, run_id, True)))
    leading, at = _leading(filters), _TABLE.c.queued_at
    # Mostly a page is full after a short stretch; only what is rare is worth a look for where a long one ends.
    for stretch in sorted({min(FIRST_LOOK, looked_at), looked_at}):
        lowest = None
        if len(filters) > 1:
            lowest = await floor(
                session, at=at, filters=filters, leading=leading, conditions=between, looked_at=stretch
            )
        within = between if lowest is None else [*between, at >= lowest]
        query = newest([*_TABLE.columns], at=at, filters=filters, leading=leading, conditions=within, limit=limit + 1)
        found = (await session.execute(query)).all()
        if lowest is None or len(found) > limit:
            break
    items = found[:limit]
    if len(found) > limit:
        return Page(items, encode_cursor(items[-1].queued_at, items[-1].id), total)
    return Page(items, None if lowest is None else encode_cursor(lowest, NOTHING_BELOW), total)


def _stored_states(states: Sequence[str]) -> list[str]:
    """`queued` means all the states that are shown so."""
    stored: list[str] = []
    for state in states:
        stored += [each.value for each in QUEUED_STATES] if state == RunState.QUEUED else [state]
    return stored


def _leading(filters: Filters) -> str | None:
    """The filter whose index is walked, the others being checked row by row: the one that lets the fewest rows through.

    No statistics are asked; what is rare in a history is known: what is under way, what a person caused, what went
    wrong, what did not come from cron.
    """
    states = filters.get("state", ())
    if states and all(state in UNFINISHED for state in states):
        return "state"
    is_rare = {
        "schedule_id": True,
        "owner_id": True,
        "state": RunState.SUCCEEDED.value not in states,
        "trigger": RunTrigger.CRON.value not in filters.get("trigger", ()),
        "job": False,
    }
    given = [name for name in is_rare if name in filters]
    rare = [name for name in given if is_rare[name]]
    return rare[0] if rare else (given[-1] if given else None)


async def get_run(session: AsyncSession, *, run_id: UUID, owner_id: UUID | None = None) -> Row[Any]:
    """One run (`owner_id`: if this person caused it). Raises `NotFound`."""
    query = select(Run.__table__).where(Run.id == run_id)
    if owner_id is not None:
        query = query.where(Run.owner_id == owner_id)
    run = (await session.execute(query)).one_or_none()
    if run is None:
        raise NotFound()
    return run


async def list_attempts(session: AsyncSession, *, run: Row[Any]) -> list[Attempt]:
    """The attempts at a run, first to last: those that ended before, and the present one (or the one that settled
    it)."""
    query = select(RunAttempt.__table__).where(RunAttempt.run_id == run.id).order_by(RunAttempt.seq)
    rows = (await session.execute(query)).all()
    attempts = [Attempt(row.number, row.worker, row.started_at, row.finished_at, row.state, row.error) for row in rows]
    is_present = run.started_at is not None and run.state not in QUEUED_STATES
    if is_present and all(row.number != run.attempt for row in rows):
        # Of a run that goes on or went well, `error` is an earlier attempt's.
        error = run.error if run.state in (RunState.FAILED, RunState.LOST) else None
        state = public_state(run.state)
        attempts.append(Attempt(run.attempt, run.worker, run.started_at, run.finished_at, state, error))
    return attempts


async def last_runs(session: AsyncSession, *, jobs: Sequence[str]) -> dict[str, Row[Any]]:
    """The newest run of each of these jobs that has one, in one statement."""
    if not jobs:
        return {}
    ids = newest_of_each(_TABLE.c.job, at=_TABLE.c.queued_at, values=jobs).subquery()
    query = select(_TABLE).join(ids, ids.c.id == _TABLE.c.id)
    return {row.job: row for row in await session.execute(query)}
