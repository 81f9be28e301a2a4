"""Who a request comes from, by its token: an access token of a sign-in, or a personal API token.

`Authentication` remembers for some seconds what the tables said, one for each web process, and only as long as the
person's epoch is the one that it was read under (scheduler.accounts.revocation): what is revoked stops working at once
in every process, without a table read for each request.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import ApiToken, Session, User
from models.user import AccountStatus
from scheduler.access import Actor, Role
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.api_tokens import PREFIX, is_well_formed
from scheduler.accounts.digests import token_digest
from scheduler.accounts.revocation import REMEMBERED_S
from scheduler.database import Database
from scheduler.errors import Forbidden, Unauthenticated
from scheduler.logs import get_logger

MOST_REMEMBERED = 10_000
"""Sign-ins and tokens that one process remembers: some 10 MB."""
USE_IS_NOTED_EVERY = timedelta(minutes=1)

Key = TypeVar("Key")
Value = TypeVar("Value")

log = get_logger("security")


class SessionCaller(NamedTuple):
    """Who a verified access token says it is."""

    user_id: UUID
    session_id: UUID


class TokenCaller(NamedTuple):
    """Who holds a personal API token."""

    user_id: UUID
    digest: bytes


Caller = SessionCaller | TokenCaller


class _Known(NamedTuple):
    actor: Actor
    epoch: bytes
    until: float
    """On the monotonic clock."""
    expires_at: datetime | None
    """Of an API token."""


class _Recent(Generic[Key, Value]):
    """A mapping of bounded size: what was not asked for longest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def set(self, key: Key, value: Value) -> None:
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()


class Authentication:
    """What one web process knows of those who call it."""

    def __init__(
        self,
        access_tokens: AccessTokens,
        database: Database,
        *,
        seconds: Callable[[], float] = time.monotonic,
        most: int = MOST_REMEMBERED,
    ) -> None:
        self._access_tokens = access_tokens
        self._database = database
        self._seconds = seconds
        self._known: _Recent[Caller, _Known] = _Recent(most)
        self._owners: _Recent[bytes, UUID] = _Recent(most)
        """Whose an API token is never changes."""
        self._ended: _Recent[SessionCaller, bool] = _Recent(most)
        """Sessions that are over, which is for good."""
        self._noting: set[asyncio.Task[None]] = set()

    async def recognise(self, token: str, *, now: datetime) -> Caller:
        """Who the token says it is; whether it still works is for `authenticate` to say.

        Reads no table, but for an API token that this process has not seen lately. Raises `Unauthenticated`.
        """
        return self.recognised(token, now=now) or await self._find_owner(token)

    def recognised(self, token: str, *, now: datetime) -> Caller | None:
        """The same without waiting for anything; None where a table must be read."""
        if token.startswith(PREFIX):
            if not is_well_formed(token):
                raise Unauthenticated("This is not a token that we gave; check that it is whole.")
            digest = token_digest(token)
            owner = self._owners.get(digest)
            return TokenCaller(owner, digest) if owner is not None else None
        claims = self._access_tokens.verify(token, now=now)
        caller = SessionCaller(claims.user_id, claims.session_id)
        if self._ended.get(caller):
            raise _session_ended()
        return caller

    async def authenticate(self, caller: Caller, *, epoch: bytes | None, now: datetime) -> Actor:
        """Who may do what with this request.

        `epoch` is the person's, read after the request came in; None where it can't be had: then only the table counts,
        and what was remembered is forgotten, as nobody can tell us what becomes void.
        Raises `Unauthenticated` (`token_revoked`, `token_expired`) or `Forbidden` (`deactivated`).
        """
        if (remembered := self.remembered(caller, epoch=epoch, now=now)) is not None:
            return remembered
        began = self._seconds()  # what is read is no older than this
        async with self._database.read() as session:
            actor, expires_at = await self._read(session, caller, now)
        if epoch is not None:
            self._known.set(caller, _Known(actor, epoch, began + REMEMBERED_S, expires_at))
        return actor

    def remembered(self, caller: Caller, *, epoch: bytes | None, now: datetime) -> Actor | None:
        """The same without waiting for anything; None where the tables must be read."""
        if epoch is None:
            self.forget()
            return None
        known = self._known.get(caller)
        if known is None or known.epoch != epoch or self._seconds() >= known.until:
            return None
        if known.expires_at is not None and known.expires_at <= now:
            raise _token_expired()
        return known.actor

    def forget(self) -> None:
        """Go by the tables from here on."""
        self._known.clear()

    async def close(self) -> None:
        """Finish what is being written down."""
        if self._noting:
            await asyncio.wait(self._noting)

    async def _find_owner(self, token: str) -> Caller:
        digest = token_digest(token)
        async with self._database.read() as session:
            query = select(ApiToken.user_id).where(ApiToken.digest == digest)
            owner = (await session.execute(query)).scalar_one_or_none()
        if owner is None:
            raise _taken_back()
        self._owners.set(digest, owner)
        return TokenCaller(owner, digest)

    async def _read(self, session: AsyncSession, caller: Caller, now: datetime) -> tuple[Actor, datetime | None]:
        if isinstance(caller, SessionCaller):
            try:
                return await actor_of_session(session, caller), None
            except Unauthenticated:
                self._ended.set(caller, True)
                raise
        query = (
            select(
                ApiToken.id,
                ApiToken.scopes,
                ApiToken.expires_at,
                ApiToken.last_used_at,
                User.role,
                User.status,
                User.timezone,
                User.email_verified_at,
            )
            .join(User, User.id == ApiToken.user_id)
            .where(ApiToken.digest == caller.digest)
        )
        row = (await session.execute(query)).one_or_none()
        if row is None:
            raise _taken_back()
        if row.expires_at is not None and row.expires_at <= now:
            raise _token_expired()
        _check_active(row.status)
        if row.last_used_at is None or now - row.last_used_at >= USE_IS_NOTED_EVERY:
            self._note_use(row.id, now)
        actor = Actor(
            user_id=caller.user_id,
            role=Role(row.role),
            timezone=row.timezone,
            email_verified=row.email_verified_at is not None,
            scopes=frozenset(row.scopes.split()),
        )
        return actor, row.expires_at

    def _note_use(self, token_id: UUID, now: datetime) -> None:
        """Beside the request, which must not wait for the writer's lock."""
        task = asyncio.create_task(self._write_use(token_id, now))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _write_use(self, token_id: UUID, now: datetime) -> None:
        try:
            async with self._database.write() as session:
                await session.execute(
                    update(ApiToken)
                    .where(
                        ApiToken.id == token_id,
                        or_(ApiToken.last_used_at.is_(None), ApiToken.last_used_at <= now - USE_IS_NOTED_EVERY),
                    )
                    .values(last_used_at=now)
                )
        except Exception as error:  # a use that is not written down is no reason to refuse it
            log.info("security.use_not_noted", error=f"{type(error).__name__}: {error}"[:200])


async def actor_of_session(session: AsyncSession, caller: SessionCaller) -> Actor:
    """Who has signed in there, as the tables have it now. Raises `Unauthenticated` (`token_revoked`) or `Forbidden`
    (`deactivated`)."""
    query = (
        select(Session.ended_at, User.role, User.status, User.timezone, User.email_verified_at)
        .join(User, User.id == Session.user_id)
        .where(Session.id == caller.session_id, Session.user_id == caller.user_id)
    )
    row = (await session.execute(query)).one_or_none()
    if row is None or row.ended_at is not None:
        raise _session_ended()
    _check_active(row.status)
    return Actor(
        user_id=caller.user_id,
        role=Role(row.role),
        session_id=caller.session_id,
        timezone=row.timezone,
        email_verified=row.email_verified_at is not None,
    )


def _check_active(status: str) -> None:
    if status != AccountStatus.ACTIVE:
        raise Forbidden("This account is deactivated; an administrator can bring it back.", code="deactivated")


def _session_ended() -> Unauthenticated:
    return Unauthenticated("This session has ended; sign in again.", code="token_revoked")


def _taken_back() -> Unauthenticated:
    return Unauthenticated("This token was taken back; make a new one at /auth/tokens.", code="token_revoked")


def _token_expired() -> Unauthenticated:
    return Unauthenticated("This token has expired; make a new one at /auth/tokens.", code="token_expired")
