"""The service over real HTTP on the loopback, on both stacks, and people to use it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from models import Session, User
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.sign_up import create_admin
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.settings import Settings
from tests.factories import add_rows, user_row
from web.app import make_app
from web.server import Runner

PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


@dataclass
class Answer:
    """An answer, read whole."""

    status: int
    headers: Any
    raw: bytes
    json: Any
    text: str


@dataclass
class Caller:
    """Calls the service, as a person who is signed in, or as nobody."""

    base: str
    session: aiohttp.ClientSession
    token: str | None = None
    user: dict[str, Any] = field(default_factory=dict)
    refresh_token: str = ""

    async def __call__(self, method: str, path: str, **options: Any) -> Answer:
        """`path` is under /api/v1, unless it begins with `//`."""
        headers = dict(options.pop("headers", {}))
        if self.token and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.token}"
        address = self.base + (path[1:] if path.startswith("//") else "/api/v1" + path)
        async with self.session.request(method, address, headers=headers, allow_redirects=False, **options) as response:
            raw = await response.read()
            json = await response.json(content_type=None) if "json" in response.content_type and raw else None
            return Answer(response.status, response.headers, raw, json, raw.decode(errors="replace"))


@dataclass
class Service:
    """A running service."""

    base: str
    settings: Settings
    database: Database
    session: aiohttp.ClientSession
    nobody: Caller

    async def person(self, name: str = "Alice", **more: Any) -> Caller:
        """Somebody new who has signed up."""
        email = f"{name.lower()}-{next(_numbers)}@example.com"
        body = {"email": email, "password": PASSWORD, "name": name, **more}
        answer = await self.nobody("POST", "/auth/signup", json=body)
        assert answer.status == 201, answer.text
        return self._caller(answer)

    async def quick_person(self, name: str = "Alice", *, role: str = "user") -> Caller:
        """Somebody who is signed in without ever having had a password: their rows are put straight in, which spares a
        hash. `user` has their id and name only."""
        row = user_row(name, at=now(), role=role, email=f"{name.lower()}-{next(_numbers)}@example.com")
        session_id = new_id()
        signed_in = {
            "id": session_id,
            "user_id": row["id"],
            "ip": "127.0.0.1",
            "user_agent": "",
            "created_at": now(),
            "last_used_at": now(),
        }
        await add_rows(self.database, User, [row])
        await add_rows(self.database, Session, [signed_in])
        tokens = AccessTokens(self.settings.secret_keys)
        token = tokens.issue(user_id=row["id"], session_id=session_id, now=now())
        return Caller(self.base, self.session, token, {"id": str(row["id"]), "name": row["name"]})

    async def admin(self) -> Caller:
        """An administrator, made as the command line makes one."""
        email = f"admin-{next(_numbers)}@example.com"
        passwords = Passwords()
        try:
            await create_admin(
                self.database, email=email, name="Admin", password=PASSWORD, passwords=passwords, now=now()
            )
        finally:
            passwords.close()
        answer = await self.nobody("POST", "/auth/login", json={"email": email, "password": PASSWORD})
        assert answer.status == 200, answer.text
        return self._caller(answer)

    def _caller(self, answer: Answer) -> Caller:
        tokens = answer.json
        return Caller(self.base, self.session, tokens["access_token"], tokens["user"], tokens["refresh_token"])


async def start(settings: Settings, database: Database) -> tuple[Runner, str]:
    """Serve on a free port of the loopback; returns the runner to clean up and the base address."""
    runner = Runner(make_app(settings, database), shutdown_timeout=2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture(autouse=True)
def _only_warnings_are_logged() -> Iterator[None]:
    """A line a request would bury what a failed test has to say."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def service(settings: Settings, database: Database) -> AsyncIterator[Service]:
    """The service, listening."""
    runner, base = await start(settings, database)
    async with aiohttp.ClientSession() as session:
        yield Service(base, settings, database, session, Caller(base, session))
    await runner.cleanup()


def assert_problem(answer: Answer, status: int, code: str) -> None:
    """The answer is the problem document that the contract describes."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    body = answer.json
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"} | (
        {"errors"} if status == 422 else set()
    )
    assert body["status"] == status
    assert body["code"] == code, answer.text
    assert body["type"] == f"urn:punctual:error:{code}"
    assert body["title"] and body["detail"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    for error in body.get("errors", []):
        assert set(error) == {"field", "message", "code"}
        assert error["field"] == "" or error["field"][0] in "/?"
    assert "Traceback" not in answer.text and "SELECT" not in answer.text
