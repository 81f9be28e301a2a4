"""Reading runs and their records, for operators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import LogRecord, Run
from scheduler.errors import NotFound
from scheduler.paging import Page, decode_cursor, encode_cursor


async def list_runs(
    session: AsyncSession,
    *,
    jobs: Sequence[str] = (),
    states: Sequence[str] = (),
    triggers: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int,
    cursor: str | None = None,
    count: bool = False,
) -> Page[Row[Any]]:
    """Runs, newest first; `since` (inclusive) and `until` (exclusive) are on `queued_at`. Raises
    `BadCursor`."""
    conditions: list[ColumnElement[bool]] = []
    if jobs:
        conditions.append(Run.job.in_(jobs))
    if states:
        conditions.append(Run.state.in_(states))
    if triggers:
        conditions.append(Run.trigger.in_(triggers))
    if since:
        conditions.append(Run.queued_at >= since)
    if until:
        conditions.append(Run.queued_at < until)
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(Run).where(*conditions))).scalar_one()
    if cursor:
        conditions.append(Run.id < decode_cursor(cursor, UUID)[0])
    # Ids are made in the order of time, so the newest have the greatest.
    query = select(Run.__table__).where(*conditions).order_by(Run.id.desc()).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].id) if len(found) > limit else None, total)


async def get_run(session: AsyncSession, *, run_id: UUID) -> Row[Any]:
    """One run. Raises `NotFound`."""
    run = (await session.execute(select(Run.__table__).where(Run.id == run_id))).one_or_none()
    if run is None:
        raise NotFound()
    return run


async def list_run_logs(
    session: AsyncSession, *, run_id: UUID, limit: int, cursor: str | None = None, count: bool = False
) -> Page[Row[Any]]:
    """The records of one run, newest first. Raises `NotFound` or `BadCursor`."""
    await get_run(session, run_id=run_id)
    of_run = LogRecord.run_id == run_id
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(LogRecord).where(of_run))).scalar_one()
    query = select(LogRecord.__table__).where(of_run)
    if cursor:
        query = query.where(LogRecord.id < decode_cursor(cursor, UUID)[0])
    found = (await session.execute(query.order_by(LogRecord.id.desc()).limit(limit + 1))).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].id) if len(found) > limit else None, total)
