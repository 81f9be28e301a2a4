"""Storing beside the work: again and again, whatever happens to the database, and once more at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

LONGEST_PAUSE_S = 5.0
LAST_S = 1.5
"""For what is left when the process ends."""


async def keep_storing(store: Callable[[], Awaitable[object]], *, every_s: float) -> None:
    """Call `store` every `every_s` seconds until cancelled, and then a last time.

    It raises when it fails, which is nobody's loss here: it keeps what it could not store, and is called again (while
    it fails, less and less often, but every `LONGEST_PAUSE_S` seconds at least).
    """
    pause = every_s
    storing: asyncio.Task[bool] | None = None
    try:
        while True:
            await asyncio.sleep(pause)
            storing = asyncio.create_task(_succeeds(store))
            # Shielded: a statement that is cancelled costs its connection, and leaves in doubt what it did.
            succeeded = await asyncio.shield(storing)
            pause = every_s if succeeded else max(every_s, min(2 * pause, LONGEST_PAUSE_S))
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                if storing is not None:
                    await asyncio.wait([storing])
                await _succeeds(store)


async def _succeeds(store: Callable[[], Awaitable[object]]) -> bool:
    try:
        await store()
    except Exception:  # the database is away, mostly; to log it here would only make more to store
        return False
    return True
