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
    on_the_way,
    release_blocked,
    stage,
)
from scheduler.runs.execute import Executor
from scheduler.schedules.fire import fire_schedules
from scheduler.schedules.system import TickGate

TICK_S = 1.0
AHEAD = 200
"""Runs that may be on their way beyond what fits at once, so that a worker never waits for the way."""

LINGERS_AFTER_S = 2.0
"""How long a run may be on its way until whoever dispatched it begins it, if it can."""

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
        self._sees_some_on_the_way = False
        self._on_the_way: dict[Dispatched, float] = {}
        """What this worker dispatched and nobody has begun, and when it was first seen so."""

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
            pending = await look(session, queues=self._queues, now=at)
        if pending.quarantined:
            self._quarantined()
        # Also while others are queued: under a steady load these would else never have their turn.
        freed = await self._free_what_waits(pending)
        if is_tick and self._sees_some_on_the_way and self._executor.free:
            await self._begin_what_lingers()
        self._has_backlog = False
        if pending.queued or freed:
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

        self._sees_some_on_the_way = True  # before it is true: the commit may land though it looks failed
        dispatched, has_more = await self._database.retry_write(work)
        self._has_backlog = self._has_backlog or has_more
        for start in range(0, len(dispatched), LONGEST_MESSAGE):
            message = dispatched[start : start + LONGEST_MESSAGE]
            if not await self._carry(queue, message):
                self._begin(message)  # Redis is away: whoever dispatched it begins it

    async def _begin_what_lingers(self) -> None:
        """Begin, as there is room, what this worker dispatched some seconds ago and nobody has begun.

        Redis has lost it, or all who heard of it are busy; and if somebody begins it just now, whoever is first has it.
        """
        async with self._database.read() as session:
            there = await on_the_way(session, worker=self._executor.worker)
        at = time.monotonic()
        self._on_the_way = {each: self._on_the_way.get(each, at) for each in there}
        self._sees_some_on_the_way = bool(there)
        lingering = [each for each, since in self._on_the_way.items() if at - since >= LINGERS_AFTER_S]
        if lingering:
            self._begin(lingering[: self._executor.free])

    def _begin(self, dispatched: Sequence[Dispatched]) -> None:
        task = asyncio.create_task(self._executor.begin(dispatched))
        self._by_hand.add(task)
        task.add_done_callback(self._by_hand.discard)
