"""What somebody did, newest first."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Activity
from scheduler.access import Actor
from scheduler.paging import Page, decode_cursor, encode_cursor

_TABLE = Activity.__table__
_BY_ACTOR = next(
    str(index.name) for index in _TABLE.indexes if [column.key for column in index.columns] == ["actor_id", "id"]
)


async def list_own_activity(
    session: AsyncSession, *, actor: Actor, limit: int, cursor: str | None = None, count: bool = False
) -> Page[Row[Any]]:
    """What the actor did: rows of the table. Raises `BadCursor`."""
    conditions = [_TABLE.c.actor_id == actor.user_id]
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(_TABLE).where(*conditions))).scalar_one()
    if cursor:
        conditions.append(_TABLE.c.id < decode_cursor(cursor, UUID)[0])
    # Left to itself, MariaDB now and then walks everybody's by their ids.
    hinted = select(_TABLE).with_hint(_TABLE, f"FORCE INDEX ({_BY_ACTOR})", "mysql")
    query = hinted.where(*conditions).order_by(_TABLE.c.id.desc()).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].id) if len(found) > limit else None, total)
