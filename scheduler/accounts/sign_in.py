"""Sign-in: login, refresh with rotation, logout, and who a request comes from.

What hashes a password or must record a refusal takes the `Database` and opens short transactions of its own:
a hash
takes too long to hold a transaction (on SQLite: the writer's lock) open, and a refusal must not roll back its
record.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import RefreshToken, Session, User
from scheduler.access import Actor, Role
from scheduler.accounts.access_tokens import LIFETIME, AccessTokens
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords
from scheduler.database import Database, affected
from scheduler.errors import Forbidden, Unauthenticated
from scheduler.identifiers import new_id

SESSION_LIFETIME = timedelta(days=30)  # after its last use


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client gets when it signs in. `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    user: User
    expires_in: int = int(LIFETIME.total_seconds())


async def login(
    database: Database,
    *,
    email: str,
    password: str,
    client: Client,
    passwords: Passwords,
    access_tokens: AccessTokens,
    now: datetime,
) -> Tokens:
    """Sign in with e-mail and password. Raises `Unauthenticated` (`bad_credentials`) or `Forbidden`
    (`deactivated`)."""
    try:
        address = normalise_email(email)
    except ValueError:
        address = ""  # nobody's; the answer takes as long as for anybody's
    async with database.read() as session:
        user = (await session.execute(select(User).where(User.email == address))).scalar_one_or_none()
    if not await passwords.matches(user.password_hash if user else None, password) or user is None:
        raise Unauthenticated("The e-mail address or the password is wrong.", code="bad_credentials")
    if user.status != "active":
        raise Forbidden("This account is deactivated; an administrator can bring it back.", code="deactivated")
    rehashed = None
    if user.password_hash and passwords.needs_rehash(user.password_hash):
        rehashed = await passwords.hash(password)
    async with database.write() as session:
        if rehashed:
            await session.execute(
                update(User)
                .where(User.id == user.id, User.password_hash == user.password_hash)
                .values(password_hash=rehashed)
            )
        return await open_session(session, user=user, client=client, access_tokens=access_tokens, now=now)


async def open_session(
    session: AsyncSession, *, user: User, client: Client, access_tokens: AccessTokens, now: datetime
) -> Tokens:
    """Begin a sign-in session for `user` and give its first tokens."""
    session_id = new_id()
    await session.execute(
        insert(Session).values(
            id=session_id,
            user_id=user.id,
            ip=client.ip[:45],
            user_agent=client.user_agent[:500],
            created_at=now,
            last_used_at=now,
        )
    )
    refresh_token = await _add_refresh_token(session, session_id=session_id, now=now)
    return Tokens(access_tokens.issue(user_id=user.id, session_id=session_id, now=now), refresh_token, user)


async def refresh(database: Database, *, refresh_token: str, access_tokens: AccessTokens, now: datetime) -> Tokens:
    """Exchange a refresh token for new tokens.

    Raises `Unauthenticated` with `token_revoked` for one that was used before (its whole session ends: RFC
    9700, 4.14)
    or whose session has ended, with `unauthenticated` for one that we never gave.
    """
    digest = token_digest(refresh_token)
    async with database.write() as session:
        row = (
            await session.execute(
                select(Session, User)
                .join(RefreshToken, RefreshToken.session_id == Session.id)
                .join(User, User.id == Session.user_id)
                .where(RefreshToken.digest == digest)
            )
        ).one_or_none()
        if row is None:
            raise Unauthenticated("This refresh token is not valid; sign in again.")
        sign_in, user = row
        # Of any number of requests with one token, one finds it unused.
        claimed = await session.execute(
            update(RefreshToken)
            .where(RefreshToken.digest == digest, RefreshToken.used_at.is_(None))
            .values(used_at=now)
        )
        alive = sign_in.ended_at is None and now - sign_in.last_used_at < SESSION_LIFETIME and user.status == "active"
        reused = affected(claimed) == 0
        if alive and not reused:
            await session.execute(update(Session).where(Session.id == sign_in.id).values(last_used_at=now))
            new_token = await _add_refresh_token(session, session_id=sign_in.id, now=now)
            access_token = access_tokens.issue(user_id=user.id, session_id=sign_in.id, now=now)
            return Tokens(access_token, new_token, user)
        await end_session(session, session_id=sign_in.id, now=now)
    raise Unauthenticated(
        "This refresh token was used already, so its session has ended; sign in again."
        if reused
        else "This session has ended; sign in again.",
        code="token_revoked",
    )


async def authenticate(session: AsyncSession, *, token: str, access_tokens: AccessTokens, now: datetime) -> Actor:
    """Who a request with this access token comes from.

    Raises `Unauthenticated` (`token_expired`, `token_revoked`, …), or `Forbidden` (`deactivated`).
    """
    claims = access_tokens.verify(token, now=now)
    row = (
        await session.execute(
            select(Session.ended_at, User.id, User.role, User.status, User.timezone, User.email_verified_at)
            .join(User, User.id == Session.user_id)
            .where(Session.id == claims.session_id, Session.user_id == claims.user_id)
        )
    ).one_or_none()
    if row is None or row.ended_at is not None:
        raise Unauthenticated("This session has ended; sign in again.", code="token_revoked")
    if row.status != "active":
        raise Forbidden("This account is deactivated; an administrator can bring it back.", code="deactivated")
    return Actor(
        user_id=row.id,
        role=Role(row.role),
        session_id=claims.session_id,
        timezone=row.timezone,
        email_verified=row.email_verified_at is not None,
    )


async def end_session(session: AsyncSession, *, session_id: UUID, now: datetime) -> None:
    """Sign one session out: its access token and its refresh tokens stop working at once."""
    await session.execute(
        update(Session).where(Session.id == session_id, Session.ended_at.is_(None)).values(ended_at=now)
    )


def token_digest(token: str) -> bytes:
    """What is stored of a random token: SHA-256 is enough, as 256 random bits can't be guessed."""
    return hashlib.sha256(token.encode()).digest()


async def _add_refresh_token(session: AsyncSession, *, session_id: UUID, now: datetime) -> str:
    token = "pun_r_" + secrets.token_urlsafe(32)
    await session.execute(
        insert(RefreshToken).values(digest=token_digest(token), session_id=session_id, created_at=now)
    )
    return token
