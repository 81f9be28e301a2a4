"""`punctual web`, the real thing: its processes, their replacement under load, and their end."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.processes.listening import ListenError, bind, close
from tests.process_tree.load import Load
from tests.process_tree.running import Tree, bounded, is_alive, wait_until
from tests.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Environment = dict[str, str]
Healthy = Callable[[], bool]


def start(environment: Environment, folder: Path, healthy: Healthy, processes: int) -> Tree:
    tree = Tree(["web", "--processes", str(processes)], environment, folder)
    try:
        wait_until(lambda: healthy() or tree.process.poll() is not None, 60, "the API's answer")
        assert tree.process.poll() is None, tree.said
    except BaseException:
        tree.__exit__()
        raise
    return tree


def serving(tree: Tree) -> set[int]:
    return set(tree.members()) - {tree.pid}


@pytest.mark.parametrize("processes", [1, 2])
def test_sighup_replaces_every_process_without_a_failed_request(
    processes: int, environment: Environment, healthy: Healthy, tmp_path: Path
) -> None:
    with start(environment, tmp_path, healthy, processes) as tree:
        with Load(int(environment["PUNCTUAL_PORT"]), pause=0.002) as load:
            wait_until(lambda: len(serving(tree)) == processes, 30, "all processes")
            before = serving(tree)
            time.sleep(0.5)
            tree.send(signal.SIGHUP)
            wait_until(lambda: not before & serving(tree), 60, "the replacement")
            assert len(serving(tree)) == processes
        assert load.answers > 200
        assert not load.failures
        tree.send(signal.SIGTERM)
        assert tree.wait(15) == 0
        assert tree.members() == {}


def test_a_new_process_that_can_not_start_leaves_the_old_one_serving(
    environment: Environment, healthy: Healthy, tmp_path: Path
) -> None:
    with start(environment, tmp_path, healthy, 1) as tree:
        before = serving(tree)
        (tmp_path / ".env").write_text("PUNCTUAL_SIGNUP=perhaps\n")
        tree.send(signal.SIGHUP)
        wait_until(lambda: "the old ones stay" in tree.said, 30, "the failed start")
        assert "PUNCTUAL_SIGNUP" in tree.said
        assert serving(tree) == before
        assert healthy()
        (tmp_path / ".env").unlink()
        tree.send(signal.SIGHUP)
        wait_until(lambda: not before & serving(tree), 60, "the replacement")
        assert healthy()


def test_a_process_that_is_killed_is_started_again(environment: Environment, healthy: Healthy, tmp_path: Path) -> None:
    with start(environment, tmp_path, healthy, 2) as tree:
        wait_until(lambda: len(serving(tree)) == 2, 30, "both processes")
        victim = min(serving(tree))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in serving(tree) and len(serving(tree)) == 2, 10, "a new process")
        assert healthy()
        tree.send(signal.SIGINT)
        assert tree.wait(15) == 0
        assert tree.members() == {}


def test_a_killed_parent_leaves_no_orphan(environment: Environment, healthy: Healthy, tmp_path: Path) -> None:
    with start(environment, tmp_path, healthy, 2) as tree:
        members = list(tree.members())
        tree.process.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in members), 3, "the end of all")


def test_a_request_that_is_under_way_is_finished(environment: Environment, healthy: Healthy, tmp_path: Path) -> None:
    with start(environment, tmp_path, healthy, 1) as tree:
        with socket.create_connection(("127.0.0.1", int(environment["PUNCTUAL_PORT"])), timeout=10) as client:
            client.sendall(
                b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 2\r\n\r\n{"
            )
            time.sleep(0.5)
            tree.send(signal.SIGTERM)
            time.sleep(0.5)
            client.sendall(b"}")
            answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 422"), answer
        with bounded(10):
            assert tree.wait(10) == 0


def test_two_commands_may_share_a_port(environment: Environment, healthy: Healthy, tmp_path: Path) -> None:
    with start(environment, tmp_path, healthy, 1) as first, Tree(["web"], environment, tmp_path) as second:
        wait_until(lambda: "web.ready" in second.output.decode() or second.process.poll() is not None, 30, "ready")
        assert second.process.poll() is None, second.said
        first.send(signal.SIGTERM)
        assert first.wait(15) == 0
        assert healthy()
        second.send(signal.SIGTERM)
        assert second.wait(15) == 0


def test_a_port_that_is_taken_is_said_in_one_line(environment: Environment, tmp_path: Path) -> None:
    taken = socket.create_server(("127.0.0.1", int(environment["PUNCTUAL_PORT"])))
    with taken, Tree(["web"], environment, tmp_path) as tree:
        assert tree.wait(30) == 1
        assert tree.said.count("\n") == 1
        assert "PUNCTUAL_PORT" in tree.said


def test_a_first_start_that_fails_ends_the_command_in_one_line(environment: Environment, tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("none")
    broken = environment | {"PUNCTUAL_TLS_CERT": str(cert), "PUNCTUAL_TLS_KEY": str(cert)}
    with Tree(["web"], broken, tmp_path) as tree:
        assert tree.wait(30) == 1
        assert "Traceback" not in tree.said
        assert tree.said.count("\n") == 1
        assert tree.members() == {}


def test_a_name_stands_for_all_its_addresses_and_its_port_is_not_shared_unasked() -> None:
    port = free_port()
    sockets = bind("localhost", port, share=False)
    try:
        assert {listener.getsockname()[1] for listener in sockets} == {port}
        with pytest.raises(ListenError, match="PUNCTUAL_PORT"):
            bind("localhost", port, share=True)
    finally:
        close(sockets)
    close(bind("localhost", port, share=True))


def test_the_parent_opens_nothing_but_the_socket(environment: Environment, healthy: Healthy, tmp_path: Path) -> None:
    database = Path(environment["PUNCTUAL_DATA_DIR"]) / "punctual.sqlite3"
    database.parent.mkdir()
    sqlite3.connect(database).close()
    with start(environment, tmp_path, healthy, 1) as tree:
        opened = [os.readlink(entry) for entry in Path(f"/proc/{tree.pid}/fd").iterdir()]
        assert not any("sqlite" in target for target in opened)
