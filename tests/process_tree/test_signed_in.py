"""Several web processes, the real thing: what one does to a sign-in, and to a rate limit, counts in all of them."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack
from tests.process_tree.running import PROJECT, Tree, wait_until
from tests.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.heavy(on="mariadb"), pytest.mark.timeout(180)]

LOGIN = {"email": "alice@example.com", "password": "correct horse battery"}
NEW_PASSWORD = "another battery of horses"
PROCESSES = 2
CONNECTIONS = 16
"""The kernel deals them out: that all of them go to one process happens once in 32,000 times."""


class Service:
    """Two web processes, and connections that stay open, each to one of them."""

    def __init__(self, environment: dict[str, str], folder: Path, stack: ExitStack) -> None:
        self.environment, self.folder = environment, folder
        self.port = int(environment["PUNCTUAL_PORT"])
        tree = stack.enter_context(Tree(["web", "--processes", str(PROCESSES)], environment, folder))
        wait_until(lambda: tree.output.count(b"web.ready") == PROCESSES, 60, "both processes")
        self.connections = [self._connect(stack) for _ in range(CONNECTIONS)]

    def _connect(self, stack: ExitStack) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        stack.callback(connection.close)
        return connection

    def ask(
        self, number: int, method: str, path: str, *, token: str | None = None, body: Any = None
    ) -> tuple[int, Any, http.client.HTTPResponse]:
        """Status, body and headers, over one of the connections."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection = self.connections[number]
        connection.request(method, "/api/v1" + path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        raw = response.read()
        return response.status, json.loads(raw) if raw else None, response

    def statuses(self, token: str) -> list[int]:
        """What each connection is answered."""
        return [self.ask(number, "GET", "/users/me", token=token)[0] for number in range(CONNECTIONS)]


@pytest.fixture
def service(stack: Stack, tmp_path: Path) -> Iterator[Service]:
    environment = stack.environment(
        port=free_port(), mail_url=f"maildir:{tmp_path / 'mail'}", rate_limit_user=f"{6 * CONNECTIONS}/h"
    )
    with ExitStack() as exits:
        yield Service(environment, tmp_path, exits)


def test_in_every_process_at_once(service: Service) -> None:
    status, tokens, _ = service.ask(0, "POST", "/auth/signup", body=LOGIN | {"name": "Alice"})
    assert status == 201
    token = tokens["access_token"]
    assert service.statuses(token) == [200] * CONNECTIONS

    # Signed out at one of them.
    assert service.ask(3, "POST", "/auth/logout", token=token)[0] == 204
    assert service.statuses(token) == [401] * CONNECTIONS

    # Signed out by the command line, which is a process of its own.
    status, tokens, _ = service.ask(5, "POST", "/auth/login", body=LOGIN)
    assert status == 200
    token = tokens["access_token"]
    assert service.statuses(token) == [200] * CONNECTIONS
    command = ["admin", "reset-password", "--email", LOGIN["email"], "--password-stdin"]
    subprocess.run(
        [sys.executable, str(PROJECT / "punctual.py"), *command],
        input=f"{NEW_PASSWORD}\n".encode(),
        env=service.environment,
        cwd=service.folder,
        check=True,
        timeout=60,
    )
    assert service.statuses(token) == [401] * CONNECTIONS

    # And all of them count together.
    status, tokens, _ = service.ask(7, "POST", "/auth/login", body=LOGIN | {"password": NEW_PASSWORD})
    assert status == 200
    answers = [
        service.ask(number % CONNECTIONS, "GET", "/users/me", token=tokens["access_token"])
        for number in range(6 * CONNECTIONS)
    ]
    allowed = [response for status, _, response in answers if status == 200]
    remaining = [int(response.headers["RateLimit-Remaining"]) for response in allowed]
    assert remaining == sorted(remaining, reverse=True) and remaining[-1] == 0
    assert {status for status, _, _ in answers} == {200, 429}
