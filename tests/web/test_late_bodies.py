"""Whoever is let in and then takes their time is looked at again: what was taken from them meanwhile stays taken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from models import User
from tests.services.stored import rows
from tests.web.conftest import PASSWORD, Caller, Service


class HeldOpen:
    """A request whose head is sent, and whose body is not yet."""

    def __init__(self, service: Service, caller: Caller, method: str, path: str, body: Any, **headers: str) -> None:
        self._address = service.base.removeprefix("http://").split(":")
        self._raw = json.dumps(body).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = (
            f"{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {caller.token}\r\n{more}"
            f"Content-Type: application/json\r\nContent-Length: {len(self._raw)}\r\nConnection: close\r\n\r\n"
        ).encode()

    async def begin(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._writer.write(self._head)
        await self._writer.drain()
        await asyncio.sleep(0.7)  # it has been let in, and that is a while ago

    async def end(self) -> int:
        """Send the body; returns the answer's status."""
        self._writer.write(self._raw)
        answer = await asyncio.wait_for(self._reader.read(), 20)
        self._writer.close()
        return int(answer.split(b" ", 2)[1])


@pytest.mark.heavy(on="mariadb")
async def test_a_session_that_ended_before_the_body_came_does_nothing(service: Service) -> None:
    admin, mallory = await service.admin(), await service.person("Mallory")
    held = HeldOpen(service, admin, "PATCH", f"/users/{mallory.user['id']}", {"role": "admin"})
    await held.begin()
    assert (await admin("POST", "/auth/logout")).status == 204
    assert await held.end() == 401
    assert (await mallory("GET", "/users")).status == 403


@pytest.mark.heavy(on="mariadb")
async def test_who_is_no_administrator_any_longer_makes_no_other(service: Service) -> None:
    boss, rogue = await service.admin(), await service.admin()
    body = {"email": "backdoor@example.com", "name": "B", "role": "admin", "password": PASSWORD}
    held = [
        HeldOpen(service, rogue, "POST", "/users", body),
        HeldOpen(service, rogue, "POST", "/users", body, **{"Idempotency-Key": "k"}),
    ]
    for each in held:
        await each.begin()
    assert (await boss("PATCH", f"/users/{rogue.user['id']}", json={"role": "user"})).status == 200
    assert [await each.end() for each in held] == [403, 403]
    assert "backdoor@example.com" not in {row.email for row in await rows(service.database, User)}
