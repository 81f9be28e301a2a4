"""Sign-in: login, refresh with rotation, logout.

What hashes a password or must record a refusal takes the `Database` and opens short transactions of its own: a hash
takes too long to hold a transaction (on SQLite: the writer's lock) open, and a refusal must not roll back its record.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import RefreshToken, Session, User
from models.user import AccountStatus
from scheduler.access import Actor
from scheduler.accounts.access_tokens import LIFETIME, AccessTokens
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.client import Client
from scheduler.accounts.digests import token_digest
from scheduler.accounts.login_lock import add_failure, address_digest, forget_failures, is_locked
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.revocation import revoke
from scheduler.accounts.two_factor import use_code, wrong_code
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT, Database, affected
from scheduler.encryption import Encryption
from scheduler.errors import Forbidden, PunctualError, Unauthenticated
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.settings import Settings

log = get_logger("security")

SESSION_LIFETIME = timedelta(days=30)  # after its last use

_USER = User.__table__


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
    otp: str | None = None,
    client: Client,
    passwords: Passwords,
    access_tokens: AccessTokens,
    encryption: Encryption,
    settings: Settings,
    now: datetime,
) -> Tokens:
    """Sign in with e-mail and password, and with a code (`otp`) where two-factor sign-in is on.

    Raises `Unauthenticated` (`bad_credentials`, also while the login is locked; `otp_required`, `bad_otp`) or
    `Forbidden` (`deactivated`). Whatever is wrong with address or password, what is done for it is the same, and so is
    the time that it takes (OWASP ASVS 5.0, 6.3.8). Somebody who has asked for their account to be deleted takes that
    back by signing in.
    """
    try:
        address = normalise_email(email)
    except ValueError:
        address = email.strip().lower()  # nobody's, as nobody could sign up with it; failures count all the same
    digest = address_digest(address)
    async with database.read() as session:
        query = select(User.id, User.password_hash).where(User.email == address)
        known = (await session.execute(query)).one_or_none()
    stored = known.password_hash if known else None
    right = await passwords.matches(stored, password)

    async def refuse(session: AsyncSession, reason: str, *, locked: bool, error: PunctualError) -> PunctualError:
        now_locked = await add_failure(session, digest=digest, locked=locked, now=now)
        fields = {"reason": reason, "ip": client.ip} | ({"user_id": str(known.id)} if known else {})
        _log_after_commit(session, lambda: log.info("security.sign_in_failed", **fields))
        if now_locked:
            _log_after_commit(session, lambda: log.warning("security.sign_in_locked", **fields))
        return error

    async def work(session: AsyncSession) -> Tokens | PunctualError | None:
        # Locked, so that of many guesses at once each sees those before it fail; and looked at again: the password may
        # have been changed, and all sessions ended, since it was read.
        # And no more of it than is needed: reading the whole of a row would tell by its time that there is one.
        columns = (_USER.c.email, _USER.c.password_hash, _USER.c.status)
        query = select(*columns).where(_USER.c.id == (known.id if known else new_id())).with_for_update()
        held = (await session.execute(query)).one_or_none()
        # Only now, after the hash: what is checked after the tenth wrong guess has come too late.
        locked = await is_locked(session, digest=digest, now=now)
        if right and not locked and held is not None and held.email == address and held.password_hash != stored:
            return None  # by another sign-in of theirs with today's parameters, perhaps: what is stored now counts
        if (
            locked
            or not right
            or held is None
            or (held.email, held.password_hash) != (address, stored)
            or held.status == AccountStatus.ERASED
        ):
            reason = "locked" if locked else "password" if known else "address"
            return await refuse(session, reason, locked=locked, error=_bad_credentials())
        held = (await session.execute(select(_USER).where(_USER.c.email == address))).one()
        if held.status == AccountStatus.DEACTIVATED:
            _log_after_commit(
                session,
                lambda: log.info("security.sign_in_failed", reason="deactivated", ip=client.ip, user_id=str(held.id)),
            )
            return _deactivated()
        if held.totp_enabled_at is not None:
            if otp is None or not otp.strip():
                return Unauthenticated(
                    "Send the code that your authenticator shows, or a recovery code, as `otp` as well.",
                    code="otp_required",
                )
            if not await use_code(
                session, user=held, otp=otp, client=client, encryption=encryption, settings=settings, now=now
            ):
                return await refuse(session, "code", locked=False, error=wrong_code())
        await forget_failures(session, digest=digest)
        user = await _taken_back(session, held, client=client, now=now)
        return await open_session(session, user=user, client=client, access_tokens=access_tokens, now=now)

    # A refusal is returned, not raised: what it counts must be committed.
    outcome = await database.retry_write(work)
    if outcome is None:
        return await login(
            database,
            email=email,
            password=password,
            otp=otp,
            client=client,
            passwords=passwords,
            access_tokens=access_tokens,
            encryption=encryption,
            settings=settings,
            now=now,
        )
    if isinstance(outcome, PunctualError):
        raise outcome
    if stored and passwords.needs_rehash(stored):
        await _rehash(database, user_id=outcome.user.id, stored=stored, password=password, passwords=passwords)
    return outcome


def _bad_credentials() -> Unauthenticated:
    return Unauthenticated("The e-mail address or the password is wrong.", code="bad_credentials")


def _deactivated() -> Forbidden:
    return Forbidden("This account is deactivated; an administrator can bring it back.", code="deactivated")


async def _taken_back(session: AsyncSession, held: Row[Any], *, client: Client, now: datetime) -> User:
    """The account as it is from now on: one that was to be deleted stays."""
    if held.status != AccountStatus.DELETING:
        return User(**held._mapping)
    values = {"status": AccountStatus.ACTIVE.value, "deletion_requested_at": None, "updated_at": now}
    await session.execute(update(_USER).where(_USER.c.id == held.id).values(values))
    revoke(session, held.id)
    await record(
        session,
        actor_id=held.id,
        action="deletion_taken_back",
        target_type="user",
        target_id=held.id,
        now=now,
        client=client,
        changes={"status": [AccountStatus.DELETING.value, AccountStatus.ACTIVE.value]},
    )
    taken_back = {"user_id": str(held.id)}
    _log_after_commit(session, lambda: log.info("security.deletion_taken_back", **taken_back))
    return User(**{**held._mapping, **values})


async def _rehash(database: Database, *, user_id: UUID, stored: str, password: str, passwords: Passwords) -> None:
    """Store a hash with today's parameters; the password can be had only now."""
    rehashed = await passwords.hash(password)
    async with database.write() as session:
        await session.execute(
            update(_USER).where(_USER.c.id == user_id, _USER.c.password_hash == stored).values(password_hash=rehashed)
        )


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
    await record(
        session,
        actor_id=user.id,
        action="signed_in",
        target_type="session",
        target_id=session_id,
        now=now,
        client=client,
    )
    signed_in = {"user_id": str(user.id), "session_id": str(session_id), "ip": client.ip}
    _log_after_commit(session, lambda: log.info("security.signed_in", **signed_in))
    refresh_token = await _add_refresh_token(session, session_id=session_id, now=now)
    return Tokens(access_tokens.issue(user_id=user.id, session_id=session_id, now=now), refresh_token, user)


async def refresh(database: Database, *, refresh_token: str, access_tokens: AccessTokens, now: datetime) -> Tokens:
    """Exchange a refresh token for new tokens.

    Raises `Unauthenticated` with `token_revoked` for one that was used before (its whole session ends: RFC 9700, 4.14)
    or whose session has ended, with `unauthenticated` for one that we never gave; `Forbidden` (`deactivated`).
    """
    digest = token_digest(refresh_token)

    async def work(session: AsyncSession) -> Tokens | PunctualError:
        row = (
            await session.execute(
                select(Session.id.label("session_id"), Session.ended_at, Session.last_used_at, *_USER.c)
                .join(RefreshToken, RefreshToken.session_id == Session.id)
                .join(User, User.id == Session.user_id)
                .where(RefreshToken.digest == digest)
            )
        ).one_or_none()
        if row is None:
            return Unauthenticated("This refresh token is not valid; sign in again.")
        if row.ended_at is None and row.status == AccountStatus.DEACTIVATED:
            return _deactivated()
        # Of any number of requests with one token, one finds it unused.
        claimed = await session.execute(
            update(RefreshToken)
            .where(RefreshToken.digest == digest, RefreshToken.used_at.is_(None))
            .values(used_at=now)
        )
        if affected(claimed) == 0:
            await end_session(session, session_id=row.session_id, user_id=row.id, now=now)
            reused = {"user_id": str(row.id), "session_id": str(row.session_id)}
            _log_after_commit(session, lambda: log.warning("security.refresh_token_reused", **reused))
            return Unauthenticated(
                "This refresh token was used already, so its session has ended; sign in again.", code="token_revoked"
            )
        if row.ended_at is not None or now - row.last_used_at >= SESSION_LIFETIME or row.status != "active":
            await end_session(session, session_id=row.session_id, user_id=row.id, now=now)
            return Unauthenticated("This session has ended; sign in again.", code="token_revoked")
        await session.execute(update(Session).where(Session.id == row.session_id).values(last_used_at=now))
        new_token = await _add_refresh_token(session, session_id=row.session_id, now=now)
        access_token = access_tokens.issue(user_id=row.id, session_id=row.session_id, now=now)
        return Tokens(access_token, new_token, User(**{column.name: row._mapping[column.name] for column in _USER.c}))

    # A refusal is returned, not raised: the end of the session must be committed.
    outcome = await database.retry_write(work)
    if isinstance(outcome, PunctualError):
        raise outcome
    return outcome


async def sign_out(session: AsyncSession, *, actor: Actor, client: Client, now: datetime) -> None:
    """End the session that the request came with."""
    if actor.session_id is None:
        return
    await end_session(session, session_id=actor.session_id, user_id=actor.user_id, now=now)
    await record(
        session,
        actor_id=actor.user_id,
        action="signed_out",
        target_type="session",
        target_id=actor.session_id,
        now=now,
        client=client,
    )
    signed_out = {"user_id": str(actor.user_id), "session_id": str(actor.session_id)}
    _log_after_commit(session, lambda: log.info("security.signed_out", **signed_out))


async def end_session(session: AsyncSession, *, session_id: UUID, user_id: UUID, now: datetime) -> None:
    """Sign one session of a person out: its access token and its refresh tokens stop working at once."""
    ended = await session.execute(
        update(Session)
        .where(Session.id == session_id, Session.user_id == user_id, Session.ended_at.is_(None))
        .values(ended_at=now)
    )
    if affected(ended):
        revoke(session, user_id)


async def _add_refresh_token(session: AsyncSession, *, session_id: UUID, now: datetime) -> str:
    token = "pun_r_" + secrets.token_urlsafe(32)
    await session.execute(
        insert(RefreshToken).values(digest=token_digest(token), session_id=session_id, created_at=now)
    )
    return token


def _log_after_commit(session: AsyncSession, event: Callable[[], None]) -> None:
    session.info.setdefault(AFTER_COMMIT, []).append(event)
