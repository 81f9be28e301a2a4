"""The tests' own servers and fixtures: they start, survive a kill, and end with us."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pymysql
import pytest
import redis as redis_client
from sqlalchemy import text

from scheduler.database import Database
from scheduler.settings import Settings
from tests.conftest import NO_MARIADB, Stack
from tests.processes import find_program
from tests.servers import MariaDBServer, RedisServer, ServerError
from tests.template import MariaDBTemplate

ROOT = Path(__file__).parent.parent


def connect(server: MariaDBServer, database: str) -> pymysql.connections.Connection[Any]:
    return pymysql.connect(
        host="127.0.0.1", port=server.port, user=server.user, password=server.password, database=database
    )


def test_mariadb_keeps_commits_over_a_kill_and_stays_at_its_address(mariadb: MariaDBServer) -> None:
    url = mariadb.create_database("kept")
    assert url == f"mysql://punctual:punctual@127.0.0.1:{mariadb.port}/kept"
    with connect(mariadb, "kept") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (name VARCHAR(20)) ENGINE=InnoDB")
        cursor.execute("INSERT INTO t VALUES ('naïve 🙂')")
        connection.commit()
        cursor.execute("INSERT INTO t VALUES ('never committed')")
        mariadb.kill()
        assert not mariadb.running
    mariadb.restart()
    with connect(mariadb, "kept") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM t")
        assert cursor.fetchall() == (("naïve 🙂",),)
    assert mariadb.status("Questions") > 0
    mariadb.drop_database("kept")
    with pytest.raises(pymysql.err.OperationalError):
        connect(mariadb, "kept")


def test_a_paused_server_hangs_and_then_goes_on(redis_server: RedisServer) -> None:
    client = redis_client.Redis.from_url(redis_server.url, socket_timeout=0.2)
    redis_server.pause()
    with pytest.raises(redis_client.TimeoutError):
        client.ping()
    redis_server.resume()
    assert client.ping()
    client.close()


@pytest.mark.parametrize("unix_socket", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_redis_keeps_its_address_and_keeps_its_data_if_asked_to(unix_socket: bool, persistent: bool) -> None:
    with RedisServer(unix_socket=unix_socket, persistent=persistent) as server:
        client = redis_client.Redis.from_url(server.url)
        client.set("a", "1")
        server.restart()
        assert client.get("a") == (b"1" if persistent else None)
        client.set("a", "2")
        server.flushall()
        assert client.get("a") is None
        server.kill()
        with pytest.raises(redis_client.ConnectionError):
            client.ping()
        server.ensure_running()
        assert client.ping()
        client.close()


async def test_a_server_started_in_a_thread_outlives_the_thread() -> None:
    with RedisServer() as server:

        def start_in_a_loop_of_its_own() -> None:
            asyncio.run(asyncio.to_thread(server.restart))

        await asyncio.to_thread(start_in_a_loop_of_its_own)
        await asyncio.sleep(0.2)
        assert server.running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_servers_end_with_a_process_that_is_killed() -> None:
    program = (
        "import time; from tests.servers import RedisServer; "
        "server = RedisServer().start(); print(server.pid, server.folder, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, folder = process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break  # dead; whoever inherited it has not looked yet
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{pid}").exists()
    # The folder is removed by the next process that starts servers.
    subprocess.run([sys.executable, "-c", "from tests.servers import RedisServer; RedisServer()"], cwd=ROOT, check=True)
    assert not Path(folder).exists()


def test_sbin_beside_a_bin_on_the_path_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbin" / "mariadbd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_program("mariadbd") == str(program)
    monkeypatch.setenv("PATH", "")
    assert find_program("mariadbd", "sh") is None


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_without_mariadb_its_half_is_skipped_loudly_and_fails_in_ci(ci: str, outcome: str) -> None:
    environment = {**os.environ, "PATH": "", "CI": ci}
    name = test_mariadb_keeps_commits_over_a_kill_and_stays_at_its_address.__name__
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/test_servers.py", "-k", name],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == (1 if ci else 0), result.stdout + result.stderr
    assert outcome in result.stdout.splitlines()[-1], result.stdout
    assert result.stdout.splitlines().count(f"{NO_MARIADB}: 1 tests did NOT run") == 1


async def test_a_stack_is_migrated_and_empty(stack: Stack, database: Database, settings: Settings) -> None:
    async with database.write() as session:
        count = await session.execute(text("SELECT count(*) FROM task"))
        assert count.scalar_one() == 0
    assert settings.database_url == stack.database_url
    assert settings.redis_url == stack.redis_url
    assert settings.data_dir == stack.data_dir


def test_reset_takes_away_rows_and_locks(mariadb: MariaDBServer, _mariadb_template: MariaDBTemplate) -> None:
    _mariadb_template.reset()
    insert = "INSERT INTO metric (name, labels, value) VALUES (%s, '{}', 1)"
    with connect(mariadb, _mariadb_template.name) as connection, connection.cursor() as cursor:
        cursor.execute(insert, ("one",))
        connection.commit()
        cursor.execute(insert, ("two",))  # holds its lock, as a test that failed midway might
        _mariadb_template.reset()
    with connect(mariadb, _mariadb_template.name) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM metric")
        assert cursor.fetchone() == (0,)


def test_a_server_that_cannot_start_says_why() -> None:
    server = RedisServer(options=["--nonsense", "1"])
    with pytest.raises(ServerError, match="nonsense"):
        server.start()
    assert not server.running
