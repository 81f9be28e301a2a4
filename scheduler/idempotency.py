"""Requests that may be sent again: the first that comes with a caller's key does the work, the others get its answer.

Three steps, each a short transaction but the second, which is that of the work:

1. `claim` writes the key down and commits, so that another request with it is told to wait. It gives the answer
   instead when there is one.
2. `keep` writes the answer down in the transaction of the effect: both are there, or neither. It is fenced by the
   claim's owner: whoever was given up on changes nothing.
3. `release` takes the key back when the work failed on our side, so that it may be tried again.

A request that died between the two (its process was killed) left a claim that never ends; after `GIVEN_UP` another
takes it over. What a key is used for, and for how long it is kept, are the contract's (section 1, "Retries"); the shape
follows the IETF's draft of the `Idempotency-Key` header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import IdempotencyKey
from scheduler.access import Actor
from scheduler.database import Database, affected
from scheduler.encryption import Encryption
from scheduler.errors import Conflict, Invalid, Unavailable
from scheduler.identifiers import new_id

KEPT = timedelta(hours=24)
"""The contract's."""
GIVEN_UP = timedelta(seconds=60)
"""Longer than any request takes: one that waits for the database is given up on after eleven seconds, and its
transaction after twenty."""
LONGEST_ANSWER = 8 * 1024 * 1024
"""Bytes that are kept of an answer, which is a third more once it is encrypted: what a column and a packet of MySQL
hold. A longer one is not given again, and its work not done again either."""
TRIES = 3
"""To claim a key that is taken back, or cleaned up, in the very moment in which it is looked at."""

_TABLE = IdempotencyKey.__table__


class IdempotencyKeyReused(Invalid):
    """This `Idempotency-Key` was sent with another request; take a new one for each thing you ask for."""

    code = "idempotency_key_reused"


class IdempotencyInProgress(Conflict):
    """The first request with this `Idempotency-Key` is still being worked on; send it again in a few seconds."""

    code = "idempotency_in_progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as it was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A key that is ours to answer."""

    digest: bytes
    owner: UUID = field(default_factory=new_id)

    def log_context(self) -> dict[str, str]:
        """What log records name it by."""
        return {"idempotency_owner": str(self.owner)}


def digest_of(*, actor: Actor, key: str) -> bytes:
    """What is stored of a key: that of one caller is another than the same of the next."""
    return hashlib.sha256(actor.user_id.bytes + key.encode()).digest()


def fingerprint_of(*, method: str, path: str, body: bytes) -> bytes:
    """What tells one request from another (`path` with its query): SHA-256 over the three, each with its length."""
    parts = (method.encode(), path.encode(), body)
    return hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()


async def claim(
    database: Database, *, actor: Actor, key: str, fingerprint: bytes, encryption: Encryption, now: datetime
) -> Claim | Answer:
    """The key, for us to answer; or the answer that it has.

    Raises `IdempotencyKeyReused` where it was used for another request, `IdempotencyInProgress` while the first is
    being worked on, `Conflict` where the answer can't be given again, and `Unavailable` where others with the same key
    come and go all the time.
    """
    mine = Claim(digest=digest_of(actor=actor, key=key))
    marks = encryption.marks(fingerprint)  # a body may hold a password, which a plain digest would give away
    values = {
        "user_id": actor.user_id,
        "fingerprint": marks[0],
        "owner": mine.owner,
        "created_at": now,
        "status": None,
        "headers": None,
        "body": None,
    }

    async def attempt(session: AsyncSession) -> Any:
        """None when it is ours now, else the row that is there."""
        try:
            await session.execute(insert(_TABLE), [{"digest": mine.digest, **values}])
            return None
        except IntegrityError:
            found = (await session.execute(select(_TABLE).where(_TABLE.c.digest == mine.digest))).one_or_none()
        if found is None:
            raise Unavailable()
        if not _is_over(found, now):
            return found
        # Whoever else finds it over reads the same owner; of all, one changes it.
        taken = await session.execute(
            update(_TABLE).where(_TABLE.c.digest == mine.digest, _TABLE.c.owner == found.owner).values(values)
        )
        if affected(taken) == 1:
            return None
        raise IdempotencyInProgress()

    for number in range(1, TRIES + 1):
        try:
            row = await database.retry_write(attempt)
            break
        except Unavailable:
            if number == TRIES:
                raise
    if row is None:
        return mine
    try:
        body = encryption.decrypt(row.body.decode("ascii")).encode() if row.body is not None else None
    except ValueError:
        raise Conflict(
            "What was answered to this `Idempotency-Key` can't be read any longer; look whether it was done."
        ) from None
    if row.fingerprint not in marks:
        raise IdempotencyKeyReused()
    if row.status is None:
        raise IdempotencyInProgress()
    if body is None:
        raise Conflict(
            "This was done, and its answer is too long to be given again; read what it has changed, then go on."
        )
    return Answer(status=row.status, headers=row.headers, body=body)


async def keep(session: AsyncSession, *, claim: Claim, answer: Answer, encryption: Encryption) -> None:
    """Write down the answer to a claim. Raises `IdempotencyInProgress` where another request has taken it over: the
    work must then be rolled back, as that one does it."""
    kept = await session.execute(
        update(_TABLE)
        .where(_TABLE.c.digest == claim.digest, _TABLE.c.owner == claim.owner, _TABLE.c.status.is_(None))
        .values(
            status=answer.status,
            headers=dict(answer.headers),
            body=_sealed(answer.body, encryption) if len(answer.body) <= LONGEST_ANSWER else None,
        )
    )
    if affected(kept) != 1:
        raise IdempotencyInProgress()


async def release(session: AsyncSession, *, claim: Claim) -> None:
    """Take back a claim that has no answer. Where the answer was committed after all, it stays."""
    await session.execute(
        delete(_TABLE).where(_TABLE.c.digest == claim.digest, _TABLE.c.owner == claim.owner, _TABLE.c.status.is_(None))
    )


def _sealed(body: bytes, encryption: Encryption) -> bytes:
    """It may hold what we store nowhere else in clear: an address with a secret in it that is shown once."""
    return encryption.encrypt(body.decode()).encode("ascii")


def _is_over(row: Any, now: datetime) -> bool:
    """Whether somebody else may have the key: it was kept long enough, or its request died."""
    age = now - row.created_at
    return bool(age >= KEPT or (row.status is None and age >= GIVEN_UP))
