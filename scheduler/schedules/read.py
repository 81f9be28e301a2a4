"""Reading people's schedules: only their owner sees them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, Schedule
from scheduler.access import Actor
from scheduler.errors import NotFound
from scheduler.newest import newest_of_each
from scheduler.paging import Page, after, decode_cursor, encode_cursor
from scheduler.runs.read import list_runs
from scheduler.schedules.cron import parse_cron


class ScheduleDetails(NamedTuple):
    """A schedule with what its answer shows."""

    row: Row[Any]
    """The columns of `Schedule`."""
    next_run_at: datetime | None
    """Ahead, also while no worker runs; None while it is paused."""
    last_run: Row[Any] | None
    """The columns of `Run`: the newest, however it was caused and however it stands."""


async def list_schedules(
    session: AsyncSession, *, actor: Actor, now: datetime, limit: int, cursor: str | None = None, count: bool = False
) -> Page[ScheduleDetails]:
    """The actor's schedules, newest first, in a fixed number of statements. Raises `BadCursor`."""
    conditions: list[ColumnElement[bool]] = [Schedule.user_id == actor.user_id]
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(Schedule).where(*conditions))).scalar_one()
    if cursor:
        created_at, schedule_id = decode_cursor(cursor, datetime, UUID)
        conditions.append(
            after((Schedule.created_at.expression, created_at, True), (Schedule.id.expression, schedule_id, True))
        )
    query = (
        select(Schedule.__table__)
        .where(*conditions)
        .order_by(Schedule.created_at.desc(), Schedule.id.desc())
        .limit(limit + 1)
    )
    found = (await session.execute(query)).all()
    items = found[:limit]
    next_cursor = encode_cursor(items[-1].created_at, items[-1].id) if len(found) > limit else None
    return Page(await _details(session, items, now), next_cursor, total)


async def get_schedule(
    session: AsyncSession, *, actor: Actor, schedule_id: UUID, now: datetime, for_update: bool = False
) -> ScheduleDetails:
    """One of the actor's schedules; `for_update` holds it until the transaction ends. Raises `NotFound`."""
    row = await get_row(session, actor=actor, schedule_id=schedule_id, for_update=for_update)
    (details,) = await _details(session, [row], now)
    return details


async def get_row(session: AsyncSession, *, actor: Actor, schedule_id: UUID, for_update: bool = False) -> Row[Any]:
    """The columns of one of the actor's schedules. Raises `NotFound`."""
    query = select(Schedule.__table__).where(Schedule.id == schedule_id, Schedule.user_id == actor.user_id)
    row = (await session.execute(query.with_for_update() if for_update else query)).one_or_none()
    if row is None:
        raise NotFound()
    return row


async def list_schedule_runs(
    session: AsyncSession,
    *,
    actor: Actor,
    schedule_id: UUID,
    limit: int,
    cursor: str | None = None,
    count: bool = False,
    **filters: Any,
) -> Page[Row[Any]]:
    """The runs of one of the actor's schedules, newest first; `filters` as `list_runs` takes them.

    Raises `NotFound` or `BadCursor`.
    """
    await get_row(session, actor=actor, schedule_id=schedule_id)
    return await list_runs(session, schedule_id=schedule_id, limit=limit, cursor=cursor, count=count, **filters)


async def _details(session: AsyncSession, rows: Sequence[Row[Any]], now: datetime) -> list[ScheduleDetails]:
    if not rows:
        return []
    table = Run.__table__
    ids = newest_of_each(table.c.schedule_id, at=table.c.queued_at, values=[row.id for row in rows]).subquery()
    found = await session.execute(select(table).join(ids, ids.c.id == table.c.id))
    last_runs = {run.schedule_id: run for run in found}
    return [ScheduleDetails(row, _next_run_at(row, now), last_runs.get(row.id)) for row in rows]


def _next_run_at(row: Row[Any], now: datetime) -> datetime | None:
    next_run_at: datetime | None = row.next_run_at
    if next_run_at is None or next_run_at > now:
        return next_run_at
    # Due, and no worker has come to it yet: the one after it is what is ahead.
    try:
        return parse_cron(row.cron, row.timezone).next_after(now)
    except ValueError:
        return None
