"""The lock of an account's password login after too many failures (contract, section 1; OWASP ASVS 5.0, 6.3.1).

Failures are counted by the digest of the address, whether or not there is an account of it: so an unknown address is
locked like a known one, and neither the answer nor its time tells them apart. A failure costs the same statements
whether it counts or, while locked, does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import LoginFailure
from scheduler.identifiers import new_id

MOST_FAILURES = 10
WINDOW = timedelta(minutes=15)
"""Within which so many failures lock, and for which they do, from the last of them on."""
KEPT = 2 * WINDOW
"""A failure older than this can't matter any longer."""

_FAILURE = LoginFailure.__table__


def address_digest(address: str) -> bytes:
    """What failures of logins with this address are counted under."""
    return hashlib.sha256(address.encode()).digest()


def confirmation_digest(user_id: UUID) -> bytes:
    """What wrong passwords and codes of somebody who is signed in already, and confirms something with them, are
    counted under: a stolen session must not be good for guessing, nor lock its owner out."""
    return hashlib.sha256(b"confirmation " + user_id.bytes).digest()


def locks(failures: Sequence[datetime], *, now: datetime) -> bool:
    """Whether these failures (the newest first) lock the login: ten within fifteen minutes, the last of them less than
    fifteen minutes ago."""
    newest = failures[:MOST_FAILURES]
    return len(newest) == MOST_FAILURES and newest[0] - newest[-1] < WINDOW and now - newest[0] < WINDOW


async def is_locked(session: AsyncSession, *, digest: bytes, now: datetime) -> bool:
    """Whether too many logins failed."""
    query = (
        select(_FAILURE.c.at)
        .where(_FAILURE.c.address_digest == digest, _FAILURE.c.at > now - KEPT)
        .order_by(_FAILURE.c.at.desc())
        .limit(MOST_FAILURES)
    )
    return locks((await session.execute(query)).scalars().all(), now=now)


async def add_failure(session: AsyncSession, *, digest: bytes, locked: bool, now: datetime) -> bool:
    """Record a failed login, and return whether it is the one that locks.

    `locked`: whether the login was locked before. Then the failure must not count, lest a stranger keep the owner out
    for as long as they please; but its row is written all the same, and goes again: it is the commit that takes time.
    """
    failure_id = new_id()
    await session.execute(insert(_FAILURE).values(id=failure_id, address_digest=digest, at=now))
    # By its id alone: a look through the address's rows would wait for those that others are about to commit.
    await session.execute(delete(_FAILURE).where(_FAILURE.c.id == (failure_id if locked else new_id())))
    return await is_locked(session, digest=digest, now=now) and not locked


async def forget_failures(session: AsyncSession, *, digest: bytes) -> None:
    """Start anew: somebody signed in."""
    await session.execute(delete(_FAILURE).where(_FAILURE.c.address_digest == digest))
