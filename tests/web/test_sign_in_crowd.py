"""A crowd that signs in at once: the others' requests do not wait for it."""

from __future__ import annotations

import asyncio

import pytest

from tests.services.stored import statements
from tests.web.conftest import PASSWORD, Caller, Service, start
from web.handlers import ROUTE_TABLES
from web.keys import PASSWORDS


@pytest.mark.heavy(on="mariadb")
async def test_who_waits_for_a_hash_holds_no_connection_of_the_database(service: Service) -> None:
    runner, base = await start(service.settings, service.database)
    try:
        alice = await service.person()
        alice.base = base
        body = {"email": alice.user["email"], "password": PASSWORD}
        turns = runner.app[PASSWORDS].turns
        taken = 0
        while not turns.locked():
            await turns.acquire()
            taken += 1
        with statements(service.database) as seen:
            crowd = [
                asyncio.create_task(Caller(base, service.session)("POST", "/auth/login", json=body)) for _ in range(20)
            ]
            for _ in range(5):
                assert (await alice("GET", "/users/me")).status == 200
            assert not any(each.done() for each in crowd)
        assert not any("password_hash" in statement and "email = " in statement for statement in seen)
        for _ in range(taken):
            turns.release()
        assert {answer.status for answer in await asyncio.gather(*crowd)} == {200}
    finally:
        await runner.cleanup()


def test_what_hashes_passwords_opens_its_own_transactions() -> None:
    """A hash is too slow to hold one open, on SQLite the only one that writes."""
    routes = [route for table in ROUTE_TABLES for route in table.routes if route.hashes]
    assert len(routes) >= 5
    assert all(route.uses_database and not route.opens_session for route in routes)
