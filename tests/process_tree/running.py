"""Real processes under test: started with a mark in their environment, by which every one of them can be
found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from tests.processes import spawn

PROJECT = Path(__file__).resolve().parents[2]
MARK = "TESTED_TREE"


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `true()` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


class Tree:
    """A command of ours and all that descends from it, told by a mark in the environment.

    Standard output and error are read all the time, into `output` and `errors`.
    """

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], folder: Path, *, script: Path | None = None
    ) -> None:
        self.mark = uuid.uuid4().hex
        self._folder = folder
        program = script or PROJECT / "punctual.py"
        self.process = spawn(
            [sys.executable, str(program), *command],
            cwd=folder,
            env={**environment, MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.output, self.errors = bytearray(), bytearray()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.output), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: object, into: bytearray) -> None:
        with contextlib.suppress(ValueError, OSError):
            while piece := os.read(stream.fileno(), 65536):  # type: ignore[attr-defined]
                into += piece

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """What came on standard error until now."""
        return self.errors.decode("utf-8", "replace")

    def members(self) -> dict[int, str]:
        """Every living process of the tree, itself included: pid and command line."""
        found = {}
        wanted = f"{MARK}={self.mark}".encode()
        # Redis writes its title over its environment; but it names the socket, in the test's own folder.
        title = f"{self._folder}/".encode()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    marked = wanted in (folder / "environ").read_bytes().split(b"\0") or title in line
                    if marked and is_alive(int(folder.name)):
                        found[int(folder.name)] = line.decode("utf-8", "replace").strip()
        return found

    def member(self, words: str) -> int:
        """The pid of the one descendant whose command line holds `words`."""
        found = [pid for pid, line in self.members().items() if words in line and pid != self.pid]
        assert len(found) == 1, (words, self.members())
        return found[0]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit status, within `seconds`; its output is complete then."""
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [self.pid, *self.members()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[list[float]]:
    """The block must end within `seconds`; the list gets how long it took."""
    began = time.monotonic()
    took: list[float] = []
    yield took
    took.append(time.monotonic() - began)
    assert took[0] <= seconds, f"took {took[0]:.1f} s, more than {seconds} s"
