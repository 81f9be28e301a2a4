"""How late an event loop comes to its work."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from scheduler.metrics.counters import counters
from scheduler.metrics.definitions import WORKER_STALLS

EVERY_S = 0.25
REMEMBERED_S = 30.0
"""Longer than it is between two scrapes, so that no stall is missed."""
STALL_S = 0.05


class LoopLag:
    """Sleeps for a while again and again, and measures by how much it oversleeps."""

    def __init__(self, *, on_stall: Callable[[float], None] | None = None) -> None:
        """`on_stall` is called with each lag of more than `STALL_S` seconds."""
        self._on_stall = on_stall
        self._lags: deque[float] = deque(maxlen=round(REMEMBERED_S / EVERY_S))

    @property
    def greatest_s(self) -> float:
        """The greatest lag of the last half minute, in seconds."""
        return max(self._lags, default=0.0)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            asked_at = time.monotonic()
            await asyncio.sleep(EVERY_S)
            lag = max(0.0, time.monotonic() - asked_at - EVERY_S)
            self._lags.append(lag)
            if lag > STALL_S and self._on_stall is not None:
                self._on_stall(lag)


async def watch_worker() -> None:
    """Count the stalls of a worker's loop until cancelled."""
    await LoopLag(on_stall=lambda seconds: counters.observe(WORKER_STALLS, (), seconds)).watch()
