"""A tick: one at a time, never forgotten, never the end of the worker."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from jobs.tick import Tick
from tests.factories import NOW


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


# -- the job's own schedule ----------------------------------------------------------------------------------


class Schedule:
    """Says whether there is a firing, and hears what it is asked."""

    def __init__(self) -> None:
        self.is_open = True
        self.asked: list[tuple[datetime, datetime]] = []
        self.now = NOW

    def __call__(self, since: datetime, until: datetime) -> bool:
        self.asked.append((since, until))
        return self.is_open

    def clock(self) -> datetime:
        return self.now


async def test_it_works_when_its_schedule_has_a_firing_and_each_moment_is_asked_for_once() -> None:
    work, schedule = Work(), Schedule()
    work.go.set()
    tick = Tick("t", work, every_s=1, is_open=schedule, clock=schedule.clock)
    for seconds, is_open in ((1, True), (2, False), (60, True)):
        schedule.now = NOW + timedelta(seconds=seconds)
        schedule.is_open = is_open
        await tick()
    assert work.begun == 2
    moments = [NOW + timedelta(seconds=seconds) for seconds in (0, 1, 2, 60)]
    assert schedule.asked == list(pairwise(moments)), "no firing falls between two calls, and none into both"


async def test_a_closed_schedule_is_no_sign_that_the_queue_is_away() -> None:
    work, schedule = Work(), Schedule()
    schedule.is_open = False
    tick = Tick("t", work, every_s=0.05, is_open=schedule, clock=schedule.clock)
    tick._called_at = time.monotonic() - 1
    assert tick.is_overdue()
    await tick()
    assert not tick.is_overdue() and work.begun == 0


async def test_who_has_something_to_do_does_not_wait_for_the_schedule() -> None:
    work, schedule = Work(), Schedule()
    work.go.set()
    schedule.is_open = False
    tick = Tick("t", work, every_s=1, is_open=schedule, clock=schedule.clock)
    await tick.now()
    assert (work.begun, schedule.asked) == (1, [])


async def test_what_comes_in_its_last_moment_is_not_forgotten() -> None:
    """Asked for at every step of the one under way: once more is done after each, and never two at once."""
    for steps in range(12):
        work = Work()
        work.go.set()
        tick = Tick("t", work, every_s=1)
        first = asyncio.create_task(tick.now())
        for _ in range(steps):
            await asyncio.sleep(0)
        begun = work.begun
        await tick.now()
        await first
        await tick.finished()
        assert work.begun > begun and work.most_at_once == 1, f"after {steps} steps"
