"""What the log says of refusals and failures: who, what and from where; and what it must not be made to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from scheduler.access import Actor
from scheduler.database import Database
from scheduler.settings import Settings
from tests.rules.process_logging import process_logging
from tests.web.conftest import Caller, Service, assert_problem
from web.app import make_app
from web.routing import RouteTable, add_routes
from web.server import Runner

SECRET = "hunter2-correct-horse"

route = RouteTable("Tests")


@route("GET", "/fails", summary="Fails", answers={200: None})
async def fails(actor: Actor) -> web.Response:
    raise RuntimeError("SELECT password_hash FROM user: nobody foresaw this")


@pytest.fixture
async def failing(settings: Settings, database: Database) -> AsyncIterator[Service]:
    """A service with a route that fails."""
    app = make_app(settings, database)
    add_routes(app, route.routes)
    runner = Runner(app, shutdown_timeout=2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        yield Service(base, settings, database, session, Caller(base, session))
    await runner.cleanup()


def lines(stream: Any, event: str) -> list[dict[str, Any]]:
    """The records of an event; each line of the log is one record."""
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all({"timestamp", "level", "event", "logger"} <= set(record) for record in records)
    return [record for record in records if record["event"] == event]


async def test_refusals_are_in_the_log_with_who_and_what(service: Service) -> None:
    alice = await service.person()
    wrong = {"email": alice.user["email"], "password": SECRET}
    with process_logging() as stream:
        for caller, method, path, body in (
            (service.nobody, "GET", "/users/me", None),
            (service.nobody, "POST", "/auth/login", wrong),
            (alice, "GET", "/admin/users", None),
            (alice, "GET", "/tasks/01890000-0000-7000-8000-000000000000", None),
            (alice, "POST", "/tasks", {"title": ""}),
        ):
            await caller(method, path, json=body, headers={"X-Request-ID": f"id{method}{path.replace('/', '.')}"})
        requests = lines(stream, "http.request")
        (failed,) = lines(stream, "security.sign_in_failed")
    told = [(each["status"], each["method"], each["route"], each["user_id"]) for each in requests]
    assert told == [
        (401, "GET", "/api/v1/users/me", None),
        (401, "POST", "/api/v1/auth/login", None),
        (403, "GET", "/api/v1/admin/users", alice.user["id"]),
        (404, "GET", "/api/v1/tasks/{task_id}", alice.user["id"]),
        (422, "POST", "/api/v1/tasks", alice.user["id"]),
    ]
    assert requests[2]["request_id"] == "idGET.admin.users" and requests[2]["timestamp"].endswith("Z")
    assert failed["ip"] == "127.0.0.1" and failed["request_id"] == "idPOST.auth.login"
    assert SECRET not in stream.getvalue() and str(alice.token) not in stream.getvalue()


async def test_what_nobody_foresaw_is_in_the_log_and_not_in_the_answer(failing: Service) -> None:
    alice = await failing.person()
    with process_logging() as stream:
        answer = await alice("GET", "/fails", headers={"X-Request-ID": "the-one"})
        (failed,) = lines(stream, "http.failed")
    assert_problem(answer, 500, "internal_error")
    assert "foresaw" not in answer.text and "password_hash" not in answer.text
    assert failed["level"] == "error" and failed["request_id"] == "the-one"
    assert "nobody foresaw this" in str(failed) and "test_logged.py" in str(failed)
    assert (await alice("GET", "/users/me")).status == 200  # and all goes on


async def test_no_text_begins_a_line(service: Service) -> None:
    forged = '{"event":"security.signed_in","level":"info"}'
    with process_logging() as stream:
        for path in (f"//nowhere%0a{forged}", f"/tasks/%0d%0a{forged}"):
            await service.nobody("GET", path, headers={"User-Agent": f"x \u2028{forged}\x85"})
        body = {"email": f"a@example.com\n{forged}", "password": f"\n{forged}"}
        await service.nobody("POST", "/auth/login", json=body)
        assert len(lines(stream, "http.request")) == 3
        assert lines(stream, "security.signed_in") == []
