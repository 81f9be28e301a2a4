"""The dispatcher of a worker: each second, and when it is woken, it marks what is queued and tells a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from jobs.perform import LONGEST_MESSAGE
from scheduler.clock import now
from scheduler.database import Database, is_unavailable
from scheduler.logs import get_logger
from scheduler.runs.dispatch import (
    Dispatch,
    Dispatched,
    Pending,
    count_on_the_way,
    dispatch,
    look,
    release_blocked,
    stage,
)
from scheduler.runs.execute import Executor
from scheduler.schedules.fire import fire_schedules
from scheduler.schedules.system import TickGate

TICK_S = 1.0
AHEAD = 200
"""Runs that may be on their way beyond what fits at once, so that a worker never waits for the way."""

log = get_logger("dispatcher")

Carry = Callable[[str, list[Dispatched]], Awaitable[bool]]


class Dispatcher:
    """Dispatches for as many runs as its own worker has room, to whichever worker hears of them first."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        gate: TickGate,
        *,
        queues: Sequence[str],
        carry: Carry,
        quarantined: Callable[[], None],
    ) -> None:
        self._database = database
        self._executor = executor
        self._gate = gate
        self._queues = list(queues)
        self._carry = carry
        self._quarantined = quarantined
        self._woken = asyncio.Event()
        self._has_backlog = False
        self._by_hand: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def freed(self) -> None:
        """There is room again; worth a look where more is queued than fitted."""
        if self._has_backlog:
            self._woken.set()

    async def run(self) -> None:
        """Dispatch until cancelled."""
        next_tick = time.monotonic()
        while True:
            is_tick = time.monotonic() >= next_tick
            if is_tick:
                next_tick = time.monotonic() + TICK_S
            self._woken.clear()
            try:
                await self._round(is_tick=is_tick)
            except Exception as error:
                if is_unavailable(error):
                    log.warning("dispatch.failed", error=f"{type(error).__name__}: {error}"[:300])
                else:
                    log.exception("dispatch.failed")
                await asyncio.sleep(0.2)
            try:
                async with asyncio.timeout(max(0.0, next_tick - time.monotonic())):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _round(self, *, is_tick: bool) -> None:
        at = now()
        if is_tick:
            async with self._database.read() as session:
                await self._gate.refresh(session)
            await fire_schedules(self._database, now=at)
        async with self._database.read() as session:
            pending = await look(session, now=at)
        if pending.quarantined:
            self._quarantined()
        queued = pending.queued or await self._free_what_waits(pending)
        self._has_backlog = False
        if queued:
            # In turn, so that none is always last to get what room there is.
            self._queues.append(self._queues.pop(0))
            for queue in self._queues:
                await self._dispatch(queue, at_once=is_tick)

    async def _free_what_waits(self, pending: Pending) -> bool:
        count = 0
        if pending.due:
            count += await self._database.retry_write(lambda session: stage(session, now=now()))
        if pending.blocked:
            count += await self._database.retry_write(release_blocked)
        return count > 0

    async def _dispatch(self, queue: str, *, at_once: bool) -> None:
        most = self._executor.concurrency + min(self._executor.concurrency, AHEAD)
        worker = self._executor.worker

        async def work(session: AsyncSession) -> Dispatch:
            under_way = len(self._executor.running) + await count_on_the_way(session, worker=worker)
            room = most - under_way
            # Many small steps cost more than a few large ones: wait until a quarter is free.
            if room < 1 or (room < most // 4 and not at_once):
                return Dispatch([], has_more=True)
            return await dispatch(session, queue=queue, worker=worker, room=room)

        dispatched, has_more = await self._database.retry_write(work)
        self._has_backlog = self._has_backlog or has_more
        for start in range(0, len(dispatched), LONGEST_MESSAGE):
            message = dispatched[start : start + LONGEST_MESSAGE]
            if not await self._carry(queue, message):
                # Redis is away: whoever dispatched it begins it.
                task = asyncio.create_task(self._executor.begin(message))
                self._by_hand.add(task)
                task.add_done_callback(self._by_hand.discard)
