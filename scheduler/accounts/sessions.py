"""Where a person is signed in."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Session
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.sign_in import SESSION_LIFETIME, end_session
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT
from scheduler.errors import NotFound
from scheduler.logs import get_logger
from scheduler.paging import Page, decode_cursor, encode_cursor

log = get_logger("security")

_SESSION = Session.__table__


async def list_sessions(
    session: AsyncSession, *, actor: Actor, now: datetime, limit: int, cursor: str | None = None, count: bool = False
) -> Page[Row[Any]]:
    """The person's sessions that have not ended, the newest sign-in first. Raises `BadCursor`."""
    conditions = _alive(actor, now)
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(_SESSION).where(*conditions))).scalar_one()
    if cursor:
        conditions.append(_SESSION.c.id < decode_cursor(cursor, UUID)[0])
    # Ids are made in the order of time.
    query = select(_SESSION).where(*conditions).order_by(_SESSION.c.id.desc()).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].id) if len(found) > limit else None, total)


async def get_session(session: AsyncSession, *, actor: Actor, session_id: UUID, now: datetime) -> Row[Any]:
    """One of the person's own that has not ended, locked. Raises `NotFound`."""
    query = select(_SESSION).where(_SESSION.c.id == session_id, *_alive(actor, now)).with_for_update()
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NotFound()
    return row


async def sign_out_session(
    session: AsyncSession, *, actor: Actor, session_id: UUID, client: Client, now: datetime
) -> None:
    """End one of the person's own sessions: what was given for it stops working at once. Raises `NotFound`."""
    row = await get_session(session, actor=actor, session_id=session_id, now=now)
    await end_session(session, session_id=row.id, user_id=actor.user_id, now=now)
    await record(
        session,
        actor_id=actor.user_id,
        action="session_ended",
        target_type="session",
        target_id=row.id,
        now=now,
        client=client,
    )
    ended = {"user_id": str(actor.user_id), "session_id": str(row.id)}
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.session_ended", **ended))


def _alive(actor: Actor, now: datetime) -> list[ColumnElement[bool]]:
    return [
        _SESSION.c.user_id == actor.user_id,
        _SESSION.c.ended_at.is_(None),
        _SESSION.c.last_used_at > now - SESSION_LIFETIME,
    ]
