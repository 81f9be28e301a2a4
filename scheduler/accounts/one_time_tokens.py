"""Tokens that travel in links, work once, and for a while: made, looked at, used up."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import OneTimeToken
from scheduler.accounts.digests import token_digest
from scheduler.database import affected
from scheduler.errors import InvalidToken


class Purpose(StrEnum):
    """What a token is for: it does nothing else."""

    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"
    INVITATION = "invitation"


LIFETIMES = {
    Purpose.VERIFY_EMAIL: timedelta(hours=24),
    Purpose.CHANGE_EMAIL: timedelta(hours=24),
    Purpose.RESET_PASSWORD: timedelta(hours=1),
    Purpose.INVITATION: timedelta(days=7),
}
"""How long each works; the contract fixes an hour for the password's."""
MOST_AN_HOUR = 10
"""Links of one purpose for one person: so many e-mails an hour nobody needs, and a stranger must not cause more."""


async def make_token(session: AsyncSession, *, user_id: UUID, purpose: Purpose, email: str, now: datetime) -> str:
    """A new token of 256 bits for the link in an e-mail to `email`. Only its digest is stored."""
    token = secrets.token_urlsafe(32)
    await session.execute(
        insert(OneTimeToken.__table__).values(
            digest=token_digest(token),
            user_id=user_id,
            purpose=purpose.value,
            email=email,
            created_at=now,
            expires_at=now + LIFETIMES[purpose],
        )
    )
    return token


async def were_enough(session: AsyncSession, *, user_id: UUID, purpose: Purpose, now: datetime) -> bool:
    """Whether this person was sent so many within the last hour that another e-mail would only be a nuisance."""
    query = select(func.count()).where(
        OneTimeToken.user_id == user_id,
        OneTimeToken.purpose == purpose.value,
        OneTimeToken.created_at > now - timedelta(hours=1),
    )
    return (await session.execute(query)).scalar_one() >= MOST_AN_HOUR


async def find_token(
    session: AsyncSession, *, token: str, purposes: Collection[Purpose], now: datetime
) -> Row[Any] | None:
    """The token's row if it would work now; changes nothing."""
    table = OneTimeToken.__table__
    query = select(table).where(
        table.c.digest == token_digest(token),
        table.c.purpose.in_([purpose.value for purpose in purposes]),
        table.c.used_at.is_(None),
        table.c.expires_at > now,
    )
    return (await session.execute(query)).one_or_none()


async def use_token(session: AsyncSession, *, token: str, purposes: Collection[Purpose], now: datetime) -> Row[Any]:
    """Use the token up, and return its row: of any number of requests at once, one succeeds. Raises `InvalidToken`."""
    found = await find_token(session, token=token, purposes=purposes, now=now)
    if found is None:
        raise InvalidToken()
    table = OneTimeToken.__table__
    used = await session.execute(
        update(table)
        .where(table.c.digest == found.digest, table.c.used_at.is_(None), table.c.expires_at > now)
        .values(used_at=now)
    )
    if affected(used) != 1:
        raise InvalidToken()
    return found


async def void_tokens(
    session: AsyncSession, *, user_id: UUID, now: datetime, purposes: Collection[Purpose] = tuple(Purpose)
) -> None:
    """None of this person's links of these purposes works any longer."""
    await session.execute(
        update(OneTimeToken.__table__)
        .where(
            OneTimeToken.user_id == user_id,
            OneTimeToken.purpose.in_([purpose.value for purpose in purposes]),
            OneTimeToken.used_at.is_(None),
        )
        .values(used_at=now)
    )
