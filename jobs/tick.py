"""A tick: one job of this process, at most once at a time, and never forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from scheduler.clock import now as present
from scheduler.database import is_unavailable
from scheduler.logs import get_logger

log = get_logger("worker")


class Tick:
    """Calls `work` when it is called. A call while one is under way means: once more after it.

    `is_open(since, until)` says whether the job's own schedule has a firing since the last call.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        every_s: float,
        is_open: Callable[[datetime, datetime], bool] = lambda since, until: True,
        clock: Callable[[], datetime] = present,
    ) -> None:
        self.name = name
        self.every_s = every_s
        self._work = work
        self._is_open = is_open
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._called_at = time.monotonic()
        self._looked_at = clock()

    async def __call__(self) -> None:
        """Do the work if its schedule says so. Cancelling the caller does not cancel the work."""
        self._called_at = time.monotonic()
        since, self._looked_at = self._looked_at, self._clock()
        if self._is_open(since, self._looked_at):
            await self.now()

    async def now(self) -> None:
        """Do the work now, or have it done again."""
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.create_task(self._run(), name=f"tick {self.name}")
        await asyncio.shield(self._task)

    def is_overdue(self) -> bool:
        """Whether nobody has called for clearly longer than `every_s`: the queue that should is away."""
        return time.monotonic() - self._called_at > self.every_s + 0.3

    async def finished(self) -> None:
        """Wait until nothing is under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            try:
                await self._work()
            except Exception as error:
                # The next tick tries again; a database that is away is no news worth a traceback each second.
                if is_unavailable(error):
                    log.warning("tick.failed", job=self.name, error=f"{type(error).__name__}: {error}"[:300])
                else:
                    log.exception("tick.failed", job=self.name)
