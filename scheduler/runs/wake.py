"""Waking workers: a word through Redis that there is something to dispatch. Lost, it costs a second at the most."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from scheduler.logs import get_logger

CHANNEL = "punctual:wake"
PATIENCE_S = 0.5

log = get_logger("runs")


async def wake_workers(redis: Redis | None) -> None:
    """Tell every worker to look now. Never raises, and never waits for long: each worker looks every second anyway."""
    if redis is None:
        return
    try:
        async with asyncio.timeout(PATIENCE_S):
            await redis.publish(CHANNEL, b"")
    except Exception as error:
        log.debug("workers.not_woken", error=f"{type(error).__name__}: {error}"[:200])
