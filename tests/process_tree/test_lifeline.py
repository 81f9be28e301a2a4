"""A child ends when its parent does: by the kernel's signal, and by the pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scheduler.processes.lifeline import Lifeline, spawn
from tests.process_tree.running import PROJECT, is_alive, wait_until

PARENT = """
import sys, time
from scheduler.processes.lifeline import Lifeline, spawn
lifeline = Lifeline()
child = spawn([{program}], descriptors=[lifeline.read_end])
print(child.pid, flush=True)
time.sleep(60)
"""

STUBBORN = """
import signal, sys, time
from scheduler.processes.lifeline import hold
signal.signal(signal.SIGTERM, lambda *_: open({note!r}, "a").write("asked\\n"))
hold(int(sys.argv[1]), patience=0.5)
open({note!r}, "a").write("ready\\n")
while True:
    time.sleep(60)
"""


def start_parent(program: str) -> tuple[subprocess.Popen[bytes], int]:
    """A parent with one child; returns it and the child's pid."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(program=program)], cwd=PROJECT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal is Linux's")
def test_any_program_ends_when_its_parent_is_killed() -> None:
    parent, child = start_parent("'sleep', '60'")
    assert is_alive(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(child), 1, "the child's end")


def test_a_python_child_is_asked_first_and_ends_even_if_it_does_not_listen(tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = STUBBORN.format(note=str(note))
    parent, child = start_parent(f"sys.executable, '-c', {script!r}, str(lifeline.read_end)")
    wait_until(lambda: note.exists() and "ready" in note.read_text(), 10, "the child's start")
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(child), 3, "the child's end")
    assert "asked" in note.read_text()


def test_the_pipe_alone_ends_a_python_child(tmp_path: Path) -> None:
    # Without the kernel's signal, as on a system that has none: the parent lives on and lets go of the pipe.
    note = tmp_path / "note"
    lifeline = Lifeline()
    child = subprocess.Popen(
        [sys.executable, "-c", STUBBORN.format(note=str(note)), str(lifeline.read_end)],
        cwd=PROJECT,
        pass_fds=[lifeline.read_end],
    )
    try:
        wait_until(lambda: note.exists() and "ready" in note.read_text(), 10, "the child's start")
        lifeline.close()
        assert child.wait(3) == 1
        assert "asked" in note.read_text()
    finally:
        child.kill()


def test_a_child_has_a_session_of_its_own_and_only_the_descriptors_it_was_given() -> None:
    lifeline = Lifeline()
    spare = os.open(os.devnull, os.O_RDONLY)
    script = "import os; print(os.getsid(0) == os.getpid(), sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    reader, writer = os.pipe()
    child = spawn([sys.executable, "-c", script], descriptors=[lifeline.read_end], output=writer)
    os.close(writer)
    assert child.wait(10) == 0
    with os.fdopen(reader) as answer:
        own_session, _, descriptors = answer.read().partition(" ")
    os.close(spare)
    lifeline.close()
    assert own_session == "True"
    # The three standard ones, the lifeline, and the one that listdir itself holds.
    assert len(descriptors.split(",")) == 5


def test_a_thread_may_not_start_children() -> None:
    problems: list[Exception] = []

    def work() -> None:
        try:
            spawn(["sleep", "60"])
        except RuntimeError as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in str(problems[0])


def test_a_child_whose_parent_died_before_it_could_ask_for_the_signal_does_not_start(tmp_path: Path) -> None:
    from scheduler.processes.lifeline import _end_with_parent

    note = tmp_path / "note"
    child = subprocess.Popen(["touch", str(note)], preexec_fn=_end_with_parent(os.getpid() + 1, signal.SIGTERM))
    assert child.wait(10) == 1
    assert not note.exists()
