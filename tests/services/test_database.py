"""The database that hangs, or whose connections were swallowed by the network."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

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
