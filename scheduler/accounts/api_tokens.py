"""Personal API tokens: what a person gives to a program of theirs, for some of what they may do."""

from __future__ import annotations

import base64
import re
import secrets
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import ApiToken, Session, User
from models.user import AccountStatus
from scheduler.access import Actor, Right, Role, has_right
from scheduler.accounts.client import Client
from scheduler.accounts.digests import token_digest
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.accounts.revocation import revoke
from scheduler.accounts.scopes import ADMIN, SCOPES
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT
from scheduler.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, Unauthenticated
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.paging import Page, decode_cursor, encode_cursor
from scheduler.settings import Settings

PREFIX = "pun_t_"
"""So that a token is known for one, by us and by programs that look for secrets where they don't belong."""
MOST = 100
"""Of one person."""

_FORM = re.compile(r"pun_t_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{6})", re.ASCII)

_USER = User.__table__

log = get_logger("security")


class NewToken(NamedTuple):
    """A token that was made, with its text, which is not stored."""

    row: Row[Any]
    token: str


def new_token() -> str:
    """256 random bits, and a checksum of them."""
    body = secrets.token_urlsafe(32)
    return PREFIX + body + _checksum(body)


def is_well_formed(token: str) -> bool:
    """Whether this may be one that we gave. What was mistyped or made up is seen without a look at the database."""
    found = _FORM.fullmatch(token)
    return found is not None and _checksum(found[1]) == found[2]


async def create_token(
    session: AsyncSession,
    *,
    actor: Actor,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    client: Client,
    settings: Settings,
    now: datetime,
) -> NewToken:
    """Make a token and tell the person by e-mail.

    Raises `Invalid`, `Forbidden` (who is no administrator asks for `admin`), `Conflict` (`too_many_tokens`) or
    `Unauthenticated` (`token_revoked`).
    """
    if expires_at is not None and expires_at <= now:
        raise Invalid(FieldError("/expires_at", "Must lie ahead", "not_ahead"))
    # Locked, so that of several at once no more are made than there is room for; and so that who is signed out
    # everywhere just now has not made a way back in meanwhile.
    user = (await session.execute(select(_USER).where(_USER.c.id == actor.user_id).with_for_update())).one()
    if user.status != AccountStatus.ACTIVE or await _has_ended(session, actor):
        raise Unauthenticated("This session has ended; sign in again.", code="token_revoked")
    if ADMIN in scopes and not has_right(Role(user.role), Right.ADMINISTER):
        raise Forbidden("Only an administrator's token can have the scope `admin`.")
    mine = select(func.count()).select_from(ApiToken).where(ApiToken.user_id == actor.user_id)
    if (await session.execute(mine)).scalar_one() >= MOST:
        raise Conflict(f"You have {MOST} tokens already; delete one that is not used.", code="too_many_tokens")
    token, token_id = new_token(), new_id()
    in_order = [scope for scope in SCOPES if scope in scopes]
    await session.execute(
        insert(ApiToken).values(
            id=token_id,
            digest=token_digest(token),
            user_id=actor.user_id,
            name=name,
            scopes=" ".join(in_order),
            created_at=now,
            expires_at=expires_at,
        )
    )
    await record(
        session,
        actor_id=actor.user_id,
        action="api_token_created",
        target_type="api_token",
        target_id=token_id,
        now=now,
        client=client,
        changes={"name": [None, name], "scopes": [None, in_order]},
    )
    await send_security_notice(
        session, user=user, event=SecurityEvent.API_TOKEN_CREATED, client=client, settings=settings, now=now
    )
    _log_after_commit(session, "security.api_token_created", actor, token_id)
    row = (await session.execute(select(ApiToken.__table__).where(ApiToken.id == token_id))).one()
    return NewToken(row, token)


async def list_tokens(
    session: AsyncSession, *, actor: Actor, limit: int, cursor: str | None = None, count: bool = False
) -> Page[Row[Any]]:
    """The person's own tokens, newest first, those that have expired included until they are cleaned up. Raises
    `BadCursor`."""
    table = ApiToken.__table__
    mine = [table.c.user_id == actor.user_id]
    total = None
    if count:
        total = (await session.execute(select(func.count()).select_from(table).where(*mine))).scalar_one()
    if cursor:
        mine.append(table.c.id < decode_cursor(cursor, UUID)[0])
    # Ids are made in the order of time.
    query = select(table).where(*mine).order_by(table.c.id.desc()).limit(limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    return Page(items, encode_cursor(items[-1].id) if len(found) > limit else None, total)


async def get_token(session: AsyncSession, *, actor: Actor, token_id: UUID, for_update: bool = False) -> Row[Any]:
    """One of the person's own. Raises `NotFound`."""
    table = ApiToken.__table__
    query = select(table).where(table.c.id == token_id, table.c.user_id == actor.user_id)
    row = (await session.execute(query.with_for_update() if for_update else query)).one_or_none()
    if row is None:
        raise NotFound()
    return row


async def delete_token(session: AsyncSession, *, actor: Actor, token_id: UUID, client: Client, now: datetime) -> None:
    """Take a token back: it stops working at once. Raises `NotFound`."""
    row = await get_token(session, actor=actor, token_id=token_id, for_update=True)
    await session.execute(delete(ApiToken).where(ApiToken.id == token_id))
    revoke(session, actor.user_id)
    await record(
        session,
        actor_id=actor.user_id,
        action="api_token_deleted",
        target_type="api_token",
        target_id=token_id,
        now=now,
        client=client,
        changes={"name": [row.name, None], "scopes": [row.scopes.split(), None]},
    )
    _log_after_commit(session, "security.api_token_deleted", actor, token_id)


async def _has_ended(session: AsyncSession, actor: Actor) -> bool:
    query = select(Session.ended_at).where(Session.id == actor.session_id)
    return (await session.execute(query)).scalar_one_or_none() is not None


def _log_after_commit(session: AsyncSession, event: str, actor: Actor, token_id: UUID) -> None:
    fields = {"user_id": str(actor.user_id), "api_token_id": str(token_id)}
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info(event, **fields))


def _checksum(body: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4, "big")).decode().rstrip("=")
