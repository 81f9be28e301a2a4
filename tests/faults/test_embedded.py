"""`punctual up`, killed as a whole while reminders are due: the next start repairs what it must, and all go
out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.conftest import ROOT, Scene
from tests.processes import free_port, spawn

pytestmark = [pytest.mark.faults, pytest.mark.slow]

REMINDERS = 2000
KILLS = int(os.environ.get("KILLS", "3"))


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_kill_9_of_the_whole_tree(scene: Scene) -> None:
    """The parent is killed with SIGKILL, and takes web, worker and the embedded Redis with it."""
    environment = scene.stack.environment(mail_url=scene.sink.url, port=free_port(), grace_seconds=5)
    del environment["PUNCTUAL_REDIS_URL"]  # the embedded one
    log_path = scene.log_folder / "up.log"

    def start() -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            tree = spawn([sys.executable, "-m", "punctual", "up"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        scene.workers.append(tree)
        return tree

    scene.seed(REMINDERS)
    scene.sink.slow_down(0.03)
    in_doubt: set[str] = set()
    for _ in range(KILLS):
        before = scene.sink.count()
        tree = start()
        scene.wait_until_sink_has(before + 1, seconds=40)
        time.sleep(0.3)
        scene.kill(tree)
        time.sleep(0.3)  # the kernel ends its children
        in_doubt |= scene.in_doubt()
    scene.sink.slow_down(0)
    tree = start()
    scene.wait_until_all_sent(REMINDERS, seconds=60)
    scene.check_one_each(REMINDERS, may_repeat=in_doubt)
    tree.send_signal(signal.SIGINT)
    assert tree.wait(20) == 0
