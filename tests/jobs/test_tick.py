"""A tick: one at a time, never forgotten, never the end of the worker."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobs.tick import Tick


class Work:
    """Counts what is under way, and waits until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1


async def test_a_call_waits_for_the_work() -> None:
    work = Work()
    call = asyncio.create_task(Tick("t", work, every_s=1)())
    await asyncio.sleep(0.01)
    assert work.begun == 1 and not call.done()
    work.go.set()
    await call
    assert work.begun == 1


async def test_calls_meanwhile_mean_once_more_and_not_one_each() -> None:
    work = Work()
    tick = Tick("t", work, every_s=1)
    first = asyncio.create_task(tick())
    await asyncio.sleep(0.005)
    await asyncio.gather(*(tick() for _ in range(10)))  # they don't wait
    work.go.set()
    await first
    await tick.finished()
    assert (work.begun, work.most_at_once) == (2, 1)
    await tick()
    assert work.begun == 3


async def test_a_cancelled_caller_does_not_cancel_the_work() -> None:
    work = Work()
    tick = Tick("t", work, every_s=1)
    call = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert work.at_once == 1
    waiting = asyncio.create_task(tick.finished())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    work.go.set()
    await waiting
    assert work.at_once == 0


async def test_an_error_is_logged_and_the_next_tick_works() -> None:
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("once")
        if len(calls) == 2:
            raise OSError("the database is away")

    tick = Tick("t", work, every_s=1)
    for _ in range(3):
        await tick()
    assert len(calls) == 3


async def test_an_error_does_not_swallow_the_call_that_came_meanwhile() -> None:
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)
        await asyncio.sleep(0.01)
        if len(calls) == 1:
            raise ValueError("once")

    tick = Tick("t", work, every_s=1)
    first = asyncio.create_task(tick())
    await asyncio.sleep(0.005)
    await tick()
    await first
    await tick.finished()
    assert len(calls) == 2


async def test_overdue_once_nobody_has_called_for_longer_than_its_period() -> None:
    work = Work()
    work.go.set()
    tick = Tick("t", work, every_s=0.05)
    await tick()
    assert not tick.is_overdue()
    tick._called_at = time.monotonic() - 0.34
    assert not tick.is_overdue()
    tick._called_at = time.monotonic() - 0.36
    assert tick.is_overdue()
    await tick()
    assert not tick.is_overdue()


async def test_finished_before_the_first_call() -> None:
    await Tick("t", Work(), every_s=1).finished()
