"""Whoever changes what requests of a person are judged by (sessions, tokens, role, status, verification, time zone)
says so here.

Web processes keep who signed in with what (scheduler.accounts.authentication), each entry together with the person's
*epoch*: a word in Redis that is another after each change. `revoke` makes it another once the transaction is committed
and before the answer goes out; from then on no process finds the epoch that its entry was read under, and reads the
table again. An epoch that Redis has lost is made anew, by whoever asks next, and matches nothing either.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from uuid import UUID

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.database import REVOKED as REVOKED
from scheduler.database import Database
from scheduler.logs import get_logger
from scheduler.processes.embedded_redis import running_socket
from scheduler.redis_client import REDIS_AWAY, redis_client
from scheduler.settings import Settings

EPOCH_S = 86_400
"""An epoch is kept for a day; one that runs out costs each web process one read of the table."""
REMEMBERED_S = 10.0
"""For how long at the most a web process goes by what it has read: what holds when a word is lost after all."""
PATIENCE_S = 0.5
"""An answer waits no longer for the word to be out."""
PAUSE_S = 0.2

log = get_logger("security")


def revoke(session: AsyncSession, *user_ids: UUID) -> None:
    """What is remembered of these people's sign-ins is void as soon as the transaction is committed."""
    session.info.setdefault(REVOKED, set()).update(user_ids)


def epoch_key(user_id: UUID) -> str:
    """Where a person's epoch stands in Redis."""
    return f"punctual:epoch:{user_id.hex}"


class Revocations:
    """Carries the word from one process to all web processes. Its `tell` is what a `Database` calls."""

    def __init__(self, redis: Redis | None, *, lost: Callable[[], None] = lambda: None) -> None:
        """`lost` is called when the word can't be brought out at once; None for `redis`: nobody remembers anything."""
        self._redis = redis
        self._lost = lost
        self._under_way: set[asyncio.Task[None]] = set()

    async def tell(self, user_ids: Collection[UUID]) -> None:
        """Give these people new epochs. Never raises, and never waits for long.

        What fails is tried again meanwhile, until nobody can remember anything from before.
        """
        if self._redis is None:
            return
        tried = asyncio.Event()
        task = asyncio.create_task(self._tell(self._redis, frozenset(user_ids), tried))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        # Whoever waits here may be cancelled (a client that is gone); the word goes out all the same.
        await tried.wait()

    async def finished(self) -> None:
        """Wait until every word is out, or void: ten seconds at the most."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _tell(self, redis: Redis, user_ids: frozenset[UUID], tried: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + REMEMBERED_S
        try:
            while not await _set_epochs(redis, user_ids):
                if not tried.is_set():
                    log.warning("security.revocation_delayed", users=len(user_ids))
                    self._lost()
                    tried.set()
                if loop.time() > until:
                    return
                await asyncio.sleep(PAUSE_S)
        finally:
            tried.set()


async def _set_epochs(redis: Redis, user_ids: Collection[UUID]) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S), redis.pipeline(transaction=False) as pipeline:
            for user_id in user_ids:
                pipeline.set(epoch_key(user_id), secrets.token_bytes(12), ex=EPOCH_S)
            await pipeline.execute()
    except REDIS_AWAY:
        return False
    return True


class OwnRevocations:
    """For a process that serves nobody (a worker, the command line): its word, by a Redis client of its own."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Nothing is connected yet. Without `PUNCTUAL_REDIS_URL` the server that `punctual up` runs on the data folder
        is meant."""
        url = settings.redis_url
        if url is None and (socket := running_socket(settings.data_dir)) is not None:
            url = f"unix://{socket}"
        self._redis = redis_client(url, timeout_s=PATIENCE_S) if url else None
        self._revocations = Revocations(self._redis)
        database.tell_revoked = self._revocations.tell

    async def close(self) -> None:
        """Wait until every word is out, or void, and disconnect."""
        await self._revocations.finished()
        if self._redis is not None:
            await self._redis.aclose()
