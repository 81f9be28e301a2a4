"""What administrators do with accounts, over HTTP and on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Session, User
from scheduler.access import Actor
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.passwords import Passwords, objection
from scheduler.database import AFTER_COMMIT, Database
from scheduler.errors import FieldError, Invalid, NotFound
from scheduler.logs import get_logger
from scheduler.paging import Page, decode_cursor, encode_cursor

log = get_logger("security")


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
    """Everybody with an account, newest first; `q` stands in the name or the address, in any case.

    Raises `BadCursor`.
    """
    conditions: list[ColumnElement[bool]] = []
    if q:
        # SQLite folds ASCII only; these are how names are written.
        spellings = {q, q.lower(), q.upper(), q.title()}
        conditions.append(
            or_(
                func.lower(User.name).contains(q.lower(), autoescape=True),
                User.email.contains(q.lower(), autoescape=True),
                *(User.name.contains(each, autoescape=True) for each in sorted(spellings)),
            )
        )
    if roles:
        conditions.append(User.role.in_(roles))
    if statuses:
        conditions.append(User.status.in_(statuses))
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(User).where(*conditions))).scalar_one()
    if cursor:
        conditions.append(User.id < decode_cursor(cursor, UUID)[0])
    # Ids are made in the order of time, so the newest have the greatest.
    query = select(User.__table__).where(*conditions).order_by(User.id.desc()).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].id) if len(found) > limit else None, total)


async def end_all_sessions(session: AsyncSession, *, actor: Actor, user_id: UUID, now: datetime) -> None:
    """Sign a person out everywhere: access and refresh tokens stop working at once. Raises `NotFound`."""
    if (await session.execute(select(User.id).where(User.id == user_id))).one_or_none() is None:
        raise NotFound()
    await _end_sessions(session, user_id, now)
    revoked = {"user_id": str(user_id), "by_user_id": str(actor.user_id)}
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.sessions_revoked", **revoked))


async def _end_sessions(session: AsyncSession, user_id: UUID, now: datetime) -> None:
    await session.execute(
        update(Session).where(Session.user_id == user_id, Session.ended_at.is_(None)).values(ended_at=now)
    )


async def list_admins(database: Database) -> Sequence[User]:
    """All administrators, by e-mail address."""
    async with database.read() as session:
        query = select(User).where(User.role == "admin").order_by(User.email)
        return (await session.execute(query)).scalars().all()


async def reset_password(database: Database, *, email: str, password: str, passwords: Passwords, now: datetime) -> None:
    """Set a new password and end all sessions of the account. Raises `NotFound` or `Invalid`."""
    try:
        address = normalise_email(email)
    except ValueError as error:
        raise Invalid(FieldError("/email", str(error))) from None
    if why := objection(password, email=address):
        raise Invalid(FieldError("/password", why))
    password_hash = await passwords.hash(password)
    async with database.write() as session:
        user_id = (await session.execute(select(User.id).where(User.email == address))).scalar_one_or_none()
        if user_id is None:
            raise NotFound(f"There is no account with the address {address}.")
        await session.execute(
            update(User).where(User.id == user_id).values(password_hash=password_hash, updated_at=now)
        )
        await _end_sessions(session, user_id, now)
