"""How long an answer waits for the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from scheduler.database import STATEMENT_TIMEOUT_S

Result = TypeVar("Result")

LONGEST_S = STATEMENT_TIMEOUT_S + 1
"""A database that does not even refuse (a stopped process, a dead network) is given up on a little after a
statement's time-out."""

_left_behind: set[asyncio.Task[Any]] = set()


async def within(seconds: float, work: Awaitable[Result]) -> Result:
    """The result of `work`. Raises TimeoutError when it takes longer.

    What is late is cancelled and left behind: ending a transaction on a database that hangs takes as long as
    the hang.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    _left_behind.add(task)
    task.add_done_callback(_forget)
    task.cancel()
    raise TimeoutError("the database did not answer in time")


def _forget(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain: the caller has had a TimeoutError
