"""Fixtures that every test may use: the two stacks, each with real servers of this test session's own.

    stack                 parametrised: "sqlite" (a file; Redis on a unix socket), "mariadb" (both over TCP)
    settings, database    what the service builds from that stack
    empty_database_url    a database without a schema on that stack, for tests of the migrations
    mariadb, redis_server the session's servers by themselves
    s3_server             a server that speaks S3, with an empty bucket

Everything is made when it is first asked for. The schema is migrated once a session and handed to each test
afresh; Redis is emptied between tests. Where there is no mariadbd, the MariaDB half is skipped with one loud
line in the summary, and fails instead when CI=true.
"""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.s3_server import NO_S3, S3Server, has_s3
from tests.servers import MariaDBServer, RedisServer, find_mariadb
from tests.template import MariaDBTemplate

if TYPE_CHECKING:
    from scheduler.database import Database
    from scheduler.settings import Settings

STACKS = ("sqlite", "mariadb")

NO_MARIADB = "NO MARIADB HERE: there is no mariadbd on the PATH (setup/servers installs it)"


# -- what is run ---------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test ARGS=--thorough` runs what is heavy on both stacks."""
    parser.addoption("--thorough", action="store_true", help="run heavy tests on both stacks, not on one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave heavy tests out on the stack that their marker does not name, so that the whole stays within minutes."""
    if config.getoption("--thorough"):
        return
    left_out = []
    for item in items:
        marker = item.get_closest_marker("heavy")
        stack = getattr(item, "callspec", None) and item.callspec.params.get("stack")  # type: ignore[attr-defined]
        if marker is not None and stack is not None and stack != marker.kwargs["on"]:
            left_out.append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is collected stays to the end: the garbage collector looks at it no more (a sixth of the whole time)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


# -- servers -------------------------------------------------------------------------------------------------


def _need_mariadb() -> None:
    """Skip, or fail when CI=true, if there is no MariaDB server to start."""
    if find_mariadb() is not None:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{NO_MARIADB}, and CI=true", pytrace=False)
    pytest.skip(NO_MARIADB)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One loud line if the MariaDB half did not run (read off the reports: the tests may run in other processes)."""
    reports = [each for kind in ("skipped", "error", "failed") for each in terminalreporter.stats.get(kind, [])]
    if count := sum(NO_MARIADB in str(report.longrepr) for report in reports):
        terminalreporter.write_line(f"{NO_MARIADB}: {count} tests did NOT run", red=True, bold=True)


@pytest.fixture(scope="session")
def _mariadb_server() -> Iterator[MariaDBServer]:
    # 2: no commit is lost by a SIGKILL of the server, and the disk is not waited for.
    with MariaDBServer(flush_log_at_trx_commit=2) as server:
        yield server


@pytest.fixture
def mariadb(request: pytest.FixtureRequest) -> MariaDBServer:
    """The session's MariaDB server, running. A test may kill, pause or restart it."""
    _need_mariadb()
    server: MariaDBServer = request.getfixturevalue("_mariadb_server")
    server.ensure_running()
    return server


@pytest.fixture(scope="session")
def _redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def _redis_server_on_socket() -> Iterator[RedisServer]:
    with RedisServer(unix_socket=True) as server:
        yield server


@pytest.fixture
def redis_server(_redis_server: RedisServer) -> RedisServer:
    """The session's Redis server on a TCP port, running and empty. A test may kill, pause or restart it."""
    _redis_server.ensure_running()
    _redis_server.flushall()
    return _redis_server


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """The session's server that speaks S3, running, with an empty bucket."""
    if not has_s3():
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"{NO_S3}, and CI=true", pytrace=False)
        pytest.skip(NO_S3)
    server: S3Server = request.getfixturevalue("_s3_server")
    server.ensure_running()
    server.empty()
    return server


# -- stacks --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """What one instance of the service stands on: migrated, empty database, empty Redis, data folder."""

    name: str
    database_url: str
    """An SQLAlchemy URL, as in `Settings.database_url`."""
    redis_url: str
    data_dir: Path
    redis: RedisServer
    mariadb: MariaDBServer | None
    """None on the SQLite stack."""

    def environment(self, **settings: object) -> dict[str, str]:
        """The environment for a process of the service: ours without its settings, and this stack's.

        `settings` adds to them or replaces them, without the prefix: `environment(mail_url="smtp://…")`.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PUNCTUAL_")}
        mine = {
            "database_url": self.database_url.replace("+aiomysql", "").replace("+aiosqlite", ""),
            "redis_url": self.redis_url,
            "data_dir": self.data_dir,
            # All tests come from one address, and sign in much; those of the limits set their own.
            "rate_limit_password": "off",
            "rate_limit_user": "100000/min",
        }
        return environment | {f"PUNCTUAL_{key.upper()}": str(value) for key, value in (mine | settings).items()}


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scheduler.schema import upgrade

    path = tmp_path_factory.mktemp("template") / "punctual.sqlite3"
    upgrade(f"sqlite+aiosqlite:///{path}")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the one file is the whole database
    connection.close()
    return path


@pytest.fixture(scope="session")
def _mariadb_template(_mariadb_server: MariaDBServer) -> MariaDBTemplate:
    return MariaDBTemplate(_mariadb_server)


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Stack:
    """Each test that asks for it runs on both stacks; `-k sqlite` or `-k mariadb` picks one."""
    return _make_stack(request, request.param, tmp_path)


def _make_stack(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> Stack:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    if name == "mariadb":
        server: MariaDBServer = request.getfixturevalue("mariadb")
        template: MariaDBTemplate = request.getfixturevalue("_mariadb_template")
        template.reset()
        redis: RedisServer = request.getfixturevalue("redis_server")
        return Stack(name, template.url("mysql+aiomysql"), redis.url, data_dir, redis, server)
    path = data_dir / "punctual.sqlite3"
    shutil.copyfile(request.getfixturevalue("_sqlite_template"), path)
    redis = request.getfixturevalue("_redis_server_on_socket")
    redis.ensure_running()
    redis.flushall()
    return Stack(name, f"sqlite+aiosqlite:///{path}", redis.url, data_dir, redis, None)


@pytest.fixture
def settings(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """What the service reads from this stack's environment; all else has its default (mail: a Maildir)."""
    from scheduler.settings import load_settings

    monkeypatch.chdir(tmp_path)  # no developer's .env
    for key, value in stack.environment().items():
        if key.startswith("PUNCTUAL_"):
            monkeypatch.setenv(key, value)
    return load_settings()


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Database]:
    """The service's database on this stack; its connections end with the test."""
    from scheduler.database import Database

    database = Database(stack.database_url)
    yield database
    await database.dispose()


@pytest.fixture(params=STACKS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The SQLAlchemy URL of a database without any table, on both stacks."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.sqlite3'}"
        return
    server: MariaDBServer = request.getfixturevalue("mariadb")
    server.create_database("punctual_empty")
    yield server.url("punctual_empty", "mysql+aiomysql")
    server.ensure_running()
    server.drop_database("punctual_empty")


# -- every test ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's PUNCTUAL_… environment must not reach the tests."""
    for key in [key for key in os.environ if key.startswith("PUNCTUAL_")]:
        monkeypatch.delenv(key)
