"""Writers of one SQLite file in one process: none may hold up the others, or the loop."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from models import Metric
from scheduler.database import Database
from tests.conftest import Stack

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
AT_ONCE_S = 4
"""Far above what a write takes, and far below the wait for a lock that nobody gives back (8 s)."""


async def write(database: Database, name: str, rows: int = 300) -> None:
    values = [{"name": name, "labels": str(place), "value": 1} for place in range(rows)]
    async with database.write() as session:
        await session.execute(insert(Metric.__table__), values)


async def test_a_writer_that_is_cancelled_lets_go_at_once(database: Database) -> None:
    """Though the traceback of its cancellation holds a cursor, and so keeps its connection from being closed."""
    await write(database, "first")
    held: list[object] = []
    for place in range(80):
        writing = asyncio.create_task(write(database, f"cancelled {place}"))
        await asyncio.sleep(0.001 + 0.0002 * (place % 20))
        writing.cancel()
        held += await asyncio.gather(writing, return_exceptions=True)
        began = time.monotonic()
        await write(database, f"next {place}", rows=1)
        assert time.monotonic() - began < AT_ONCE_S


async def test_many_writers_of_which_some_fail(stack: Stack) -> None:
    """A cursor that is freed waits for its connection, a connection waits for the writer's lock, and the writer for
    the loop: in which the garbage collector frees the cursors of those that failed."""
    databases = [Database(stack.database_url) for _ in range(2)]
    longest = 0.0

    async def work(place: int) -> None:
        nonlocal longest
        for round_ in range(40):
            began = time.monotonic()
            try:
                await write(databases[place % 2], f"same {round_ % 20}")
            except IntegrityError:
                pass
            finally:
                longest = max(longest, time.monotonic() - began)

    await asyncio.gather(*map(work, range(4)))
    assert longest < AT_ONCE_S
    for database in databases:
        await database.dispose()
