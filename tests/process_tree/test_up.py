"""`punctual up`, the real thing: its start, its life, and each way in which it can end."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.processes import up
from tests.process_tree.running import Tree, bounded, is_alive, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# Generous, as other tests may keep the machine busy; alone it is up in under 5 s, and stops in one.
START_SECONDS = 60

Environment = dict[str, str]
Healthy = Callable[[], bool]


def start(environment: Environment, folder: Path) -> Tree:
    """`punctual up`, once its banner is there."""
    tree = Tree(["up"], environment, folder)
    try:
        wait_until(lambda: "Ctrl-C" in tree.said or tree.process.poll() is not None, START_SECONDS, "the banner")
        assert tree.process.poll() is None, tree.said
    except BaseException:
        tree.__exit__()
        raise
    return tree


def assert_nothing_is_left(tree: Tree, environment: Environment) -> None:
    data_dir = Path(environment["PUNCTUAL_DATA_DIR"])
    assert tree.members() == {}
    assert not (data_dir / "punctual.lock").exists()
    assert [path for path in data_dir.rglob("*") if path.is_socket()] == []
    assert not (data_dir / "redis" / "server.json").exists()
    with socket.create_server(("127.0.0.1", int(environment["PUNCTUAL_PORT"]))):
        pass  # the port is free


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(
    number: signal.Signals, environment: Environment, healthy: Healthy, tmp_path: Path
) -> None:
    with start(environment, tmp_path) as tree:
        assert healthy()
        for words in ("punctual.py web", "punctual.py worker", "redis.sock"):
            tree.member(words)
        if number is signal.SIGTERM:
            assert_a_second_start_is_refused(tree, environment, tmp_path)
        with bounded(15):
            tree.send(number)
            assert tree.wait(15) == 0
        assert_nothing_is_left(tree, environment)
        # People read standard error, programs read JSON lines on standard output.
        port = environment["PUNCTUAL_PORT"]
        for words in (f"http://127.0.0.1:{port}/docs", "admin create", "var/mail", "demo"):
            assert words in tree.said
        events = [json.loads(line)["event"] for line in tree.output.decode().splitlines()]
        assert events.index("web.stopped") < events.index("worker.stopped")


def assert_a_second_start_is_refused(tree: Tree, environment: Environment, folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    with Tree(["up"], environment, elsewhere) as second:
        assert second.wait(30) == 1
        assert second.said.count("\n") == 1
        assert f"process {tree.pid}" in second.said
    assert len(tree.members()) == 4


def test_a_killed_parent_leaves_no_orphan_and_the_next_start_works(
    environment: Environment, healthy: Healthy, tmp_path: Path
) -> None:
    with start(environment, tmp_path) as tree:
        members = list(tree.members())
        assert len(members) == 4
        tree.process.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in members), 3, "the end of all")
        assert tree.members() == {}
    with start(environment, tmp_path) as tree:
        assert healthy()
        tree.send(signal.SIGTERM)
        assert tree.wait(15) == 0
        assert_nothing_is_left(tree, environment)


def test_a_child_that_is_killed_is_started_again(environment: Environment, healthy: Healthy, tmp_path: Path) -> None:
    with start(environment, tmp_path) as tree:
        for words in ("redis.sock", "punctual.py web", "punctual.py worker"):
            before = tree.member(words)
            os.kill(before, signal.SIGKILL)
            wait_until(lambda words=words, before=before: is_there_again(tree, words, before), 10, words)  # type: ignore[misc]
        wait_until(healthy, 30, "the API's answer")
        lines = [json.loads(line) for line in tree.output.decode().splitlines()]
        ended = [line for line in lines if line["event"] == "process.ended"]
        assert [line["process"] for line in ended] == ["redis", "web", "worker"]
        assert {line["reason"] for line in ended} == {"SIGKILL"}
        tree.send(signal.SIGINT)
        assert tree.wait(15) == 0
        assert_nothing_is_left(tree, environment)


def is_there_again(tree: Tree, words: str, before: int) -> bool:
    return any(words in line and pid not in (before, tree.pid) for pid, line in tree.members().items())


def test_a_second_ctrl_c_hurries(environment: Environment, tmp_path: Path) -> None:
    with start(environment, tmp_path) as tree:
        # A worker that can't answer would be waited for.
        os.kill(tree.member("punctual.py worker"), signal.SIGSTOP)
        os.kill(tree.member("punctual.py web"), signal.SIGSTOP)
        with bounded(4):
            tree.send(signal.SIGINT)
            time.sleep(0.5)
            tree.send(signal.SIGINT)
            assert tree.wait(10) == 0
        assert_nothing_is_left(tree, environment)


def test_children_that_do_not_listen_are_stopped_within_15_seconds(environment: Environment, tmp_path: Path) -> None:
    # All three stuck would take their patience one after the other; one of them is waited for here.
    patience = up.WEB_STOP_SECONDS + up.WORKER_STOP_SECONDS + up.REDIS_STOP_SECONDS
    assert patience <= 14
    with start(environment, tmp_path) as tree:
        os.kill(tree.member("punctual.py web"), signal.SIGSTOP)
        os.kill(tree.member("redis.sock"), signal.SIGSTOP)
        with bounded(up.WEB_STOP_SECONDS + up.REDIS_STOP_SECONDS + 3):
            tree.send(signal.SIGTERM)
            assert tree.wait(20) == 0
        assert_nothing_is_left(tree, environment)


def test_a_signal_while_it_starts_stops_it(environment: Environment, tmp_path: Path) -> None:
    for delay in (0.3, 1.5):
        with Tree(["up"], environment, tmp_path) as tree:
            wait_until(lambda: (Path(environment["PUNCTUAL_DATA_DIR"]) / "punctual.lock").exists(), 30, "the lock")
            time.sleep(delay)
            tree.send(signal.SIGTERM)
            assert tree.wait(15) == 0
            assert_nothing_is_left(tree, environment)


# Starts that fail: one line on standard error, exit status 1, nothing left


def failed_start(environment: Environment, folder: Path) -> str:
    with Tree(["up"], environment, folder) as tree:
        assert tree.wait(60) == 1
        assert tree.said.count("\n") == 1, tree.said
        assert "Traceback" not in tree.said
        assert tree.output == b""
        assert tree.members() == {}
        return tree.said


def test_a_port_that_is_taken(environment: Environment, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", int(environment["PUNCTUAL_PORT"]))):
        assert "PUNCTUAL_PORT" in failed_start(environment, tmp_path)
    assert not (Path(environment["PUNCTUAL_DATA_DIR"]) / "punctual.lock").exists()


def test_a_host_that_is_not_ours(environment: Environment, tmp_path: Path) -> None:
    assert "PUNCTUAL_HOST" in failed_start(environment | {"PUNCTUAL_HOST": "192.0.2.1"}, tmp_path)


def test_a_data_folder_that_can_not_be_written(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = failed_start(environment | {"PUNCTUAL_DATA_DIR": str(tmp_path / "file" / "var")}, tmp_path)
    assert "PUNCTUAL_DATA_DIR" in said


def test_a_database_that_is_none(environment: Environment, tmp_path: Path) -> None:
    data_dir = Path(environment["PUNCTUAL_DATA_DIR"])
    data_dir.mkdir()
    (data_dir / "punctual.sqlite3").write_bytes(b"this is not a database, however long one looks at it" * 100)
    assert "PUNCTUAL_DATABASE_URL" in failed_start(environment, tmp_path)
    assert not (data_dir / "punctual.lock").exists()


def test_a_database_server_that_is_away(environment: Environment, tmp_path: Path) -> None:
    said = failed_start(environment | {"PUNCTUAL_DATABASE_URL": "mysql://a:b@127.0.0.1:1/c"}, tmp_path)
    assert "PUNCTUAL_DATABASE_URL" in said
