"""The database that hangs, or whose connections were swallowed by the network."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

import scheduler.database as database_module
from scheduler.database import Database, is_unavailable
from tests.conftest import Stack


@pytest.mark.faults
@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_a_silent_connection_ends_by_our_own_clock(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "TRANSACTION_TIMEOUT_S", 0.5)
    database = Database(stack.database_url)
    assert stack.mariadb is not None

    async def ask() -> object:
        async with database.read() as session:
            return (await session.execute(text("SELECT 1"))).scalar()

    assert await asyncio.gather(*(ask() for _ in range(5))) == [1] * 5
    stack.mariadb.pause()
    try:
        with pytest.raises(TimeoutError) as caught:
            await ask()
        assert is_unavailable(caught.value)
    finally:
        stack.mariadb.resume()
    monkeypatch.setattr(database_module, "TRANSACTION_TIMEOUT_S", 10)
    assert await ask() == 1
    await database.dispose()


# A connection that is cancelled just after it was made, the pool lets go without closing it; the driver does that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_a_cancellation_in_any_moment_of_connecting_is_heard(stack: Stack) -> None:
    """Also in that of success, in which `asyncio.wait_for` of Python 3.11 loses one of a hundred."""

    async def ask_and_go_on() -> None:
        database = Database(stack.database_url, pool_size=1)
        try:
            async with database.read():
                pass
            await asyncio.sleep(10)
        finally:
            await database.dispose()

    loop = asyncio.get_running_loop()
    for _ in range(600):
        task = asyncio.create_task(ask_and_go_on())
        cancel_at = loop.time() + random.uniform(0, 0.004)
        while loop.time() < cancel_at:  # noqa: ASYNC110 (any moment, not only those of the loop's clock)
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, "it went on"
        assert task.cancelled()


@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_a_server_that_takes_connections_and_says_nothing_is_away(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 0.5)
    database = Database(stack.database_url)
    assert stack.mariadb is not None
    stack.mariadb.pause()
    try:
        with pytest.raises(OperationalError, match=r"no answer within 0\.5 s") as caught:
            async with database.read():
                pass
        assert is_unavailable(caught.value)
    finally:
        stack.mariadb.resume()
    async with database.read() as session:
        assert (await session.execute(text("SELECT 1"))).scalar() == 1
    await database.dispose()
