"""What the tests of the process tree share: a data folder and a port of the test's own."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import free_port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a fresh install: its own data folder and port, all else by default."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith("PUNCTUAL_")}
    return mine | {"PUNCTUAL_DATA_DIR": str(tmp_path / "var"), "PUNCTUAL_PORT": str(free_port())}


@pytest.fixture
def healthy(environment: dict[str, str]) -> Callable[[], bool]:
    """Whether the API of that environment answers now."""

    def ask() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", int(environment["PUNCTUAL_PORT"]), timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask
