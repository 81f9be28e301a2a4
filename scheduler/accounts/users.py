"""People as rows: one, a page of all, those of a name; and holding one for a change.

An erased account is not there, whoever asks: what is left of it only keeps others' tasks whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Row, Select, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Session, User
from models.user import AccountStatus
from scheduler.access import Role
from scheduler.accounts import names
from scheduler.accounts.revocation import revoke
from scheduler.errors import NotFound
from scheduler.paging import Page, after, decode_cursor, encode_cursor

_TABLE = User.__table__
_SECRETS = {"password_hash", "totp_secret", "totp_last_step"}
_COLUMNS: tuple[Column[Any], ...] = tuple(column for column in _TABLE.columns if column.key not in _SECRETS)
"""All that anybody needs who only shows a person."""
_BY_NAME = next(
    str(index.name) for index in _TABLE.indexes if [column.key for column in index.columns] == ["status", "name_folded"]
)
_IS_THERE: ColumnElement[bool] = _TABLE.c.status != AccountStatus.ERASED.value


def shown_status(status: str) -> Literal["active", "deactivated"]:
    """What clients see of an account's status: whatever is not active is deactivated."""
    return "active" if status == AccountStatus.ACTIVE else "deactivated"


async def get_user(session: AsyncSession, *, user_id: UUID, for_update: bool = False) -> Row[Any]:
    """One person, without what signs them in. Raises `NotFound`."""
    query = select(*_COLUMNS).where(_TABLE.c.id == user_id, _IS_THERE)
    row = (await session.execute(query.with_for_update() if for_update else query)).one_or_none()
    if row is None:
        raise NotFound()
    return row


async def hold(session: AsyncSession, *, user_id: UUID) -> Row[Any]:
    """Lock a person for a change, and with an administrator all of them. Raises `NotFound`.

    Whether somebody is the last administrator depends on the others: two who demote each other at once must see what
    the other does. They lock in one order, so that they wait for each other rather than deadlock.
    """
    row = await get_user(session, user_id=user_id)
    if row.role == Role.ADMIN:
        await lock_admins(session)
    return await get_user(session, user_id=user_id, for_update=True)


async def lock_admins(session: AsyncSession) -> set[UUID]:
    """Lock all active administrators, by id; returns who they are."""
    active = (_TABLE.c.role == Role.ADMIN.value, _TABLE.c.status == AccountStatus.ACTIVE.value)
    # By primary key, in its order: a locking scan of all people would wait for whoever is being changed.
    ids = (await session.execute(select(_TABLE.c.id).where(*active))).scalars().all()
    query = select(_TABLE.c.id).where(_TABLE.c.id.in_(ids), *active).order_by(_TABLE.c.id).with_for_update()
    return set((await session.execute(query)).scalars())


async def end_sessions(session: AsyncSession, *, user_id: UUID, now: datetime) -> None:
    """Sign a person out everywhere: access and refresh tokens stop working with the commit."""
    ended = update(Session.__table__).where(Session.user_id == user_id, Session.ended_at.is_(None))
    await session.execute(ended.values(ended_at=now))
    revoke(session, user_id)


async def list_users(
    session: AsyncSession,
    *,
    q: str | None = None,
    roles: Sequence[str] = (),
    statuses: Sequence[str] = (),
    limit: int,
    cursor: str | None = None,
    count: bool = False,
) -> Page[Row[Any]]:
    """Everybody with an account, newest first; `q` stands in the name (without regard to case and accents) or in the
    address. `statuses` are those that clients see.

    Raises `BadCursor`.
    """
    conditions = [_IS_THERE]
    if q:
        conditions.append(or_(_is_named(q), _TABLE.c.email.contains(q.strip().lower(), autoescape=True)))
    if roles:
        conditions.append(_TABLE.c.role.in_(roles))
    if statuses:
        behind = [status.value for status in AccountStatus if shown_status(status) in statuses]
        conditions.append(_TABLE.c.status.in_(behind))
    total = await _count(session, conditions) if count else None
    if cursor:
        conditions.append(_TABLE.c.id < decode_cursor(cursor, UUID)[0])
    # Ids are made in the order of time, so the newest have the greatest.
    query = select(*_COLUMNS).where(*conditions).order_by(_TABLE.c.id.desc()).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].id) if len(found) > limit else None, total)


async def look_up(
    session: AsyncSession, *, q: str = "", limit: int, cursor: str | None = None, count: bool = False
) -> Page[Row[Any]]:
    """Who is active and has `q` in their name, by name: rows of `id`, `name` and `avatar_key`, and no more.

    Raises `BadCursor`.
    """
    conditions = [_TABLE.c.status == AccountStatus.ACTIVE.value]
    if q.strip():
        conditions.append(_is_named(q))
    total = await _count(session, conditions) if count else None
    if cursor:
        name, user_id = decode_cursor(cursor, str, UUID)
        conditions.append(after((_TABLE.c.name_folded, name, False), (_TABLE.c.id, user_id, False)))
    query: Select[Any] = select(_TABLE.c.id, _TABLE.c.name, _TABLE.c.avatar_key, _TABLE.c.name_folded)
    # Left to itself, MariaDB reads and sorts everybody.
    query = query.with_hint(_TABLE, f"FORCE INDEX ({_BY_NAME})", "mysql")
    query = query.where(*conditions).order_by(_TABLE.c.name_folded, _TABLE.c.id).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    more = len(found) > limit
    return Page(items, encode_cursor(items[-1].name_folded, items[-1].id) if more else None, total)


def _is_named(q: str) -> ColumnElement[bool]:
    folded = names.folded(q.strip())
    # Of accents alone nothing is left, which every name would hold.
    return _TABLE.c.name_folded.contains(folded, autoescape=True) if folded else _TABLE.c.id.is_(None)


async def _count(session: AsyncSession, conditions: Sequence[ColumnElement[bool]]) -> int:
    query = select(func.count()).select_from(_TABLE).where(*conditions)
    return int((await session.execute(query)).scalar_one())
