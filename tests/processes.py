"""Processes of the tests' own: they live in a temporary folder and end with the process that started them.

On Linux that holds even when the parent is killed with SIGKILL (`PR_SET_PDEATHSIG`); elsewhere only when
Python exits in order.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

START_SECONDS = 30.0
"""How long a server may take until it answers (InnoDB's recovery after a SIGKILL included)."""

STOP_SECONDS = 20.0
"""How long a server may take to end in order before it is killed."""


class ServerError(RuntimeError):
    """A private server did not start or did not answer; the message ends with the tail of its log."""


def find_program(*names: str) -> str | None:
    """The path of the first of these programs that is there, or None.

    Servers are kept in `sbin`, which is not on the PATH of an ordinary Debian user: for every `bin` on the
    PATH the `sbin` beside it is looked at too, and on a Mac Homebrew's folder for MariaDB.
    """
    folders = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    for folder in list(folders):
        if folder.name == "bin":
            folders += [folder.parent / "sbin", folder.parent / "opt" / "mariadb" / "bin"]
    path = os.pathsep.join(map(str, folders))
    for name in names:
        # An empty path would make shutil.which fall back on the system's own.
        if path and (found := shutil.which(name, path=path)):
            return found
    return None


# -- processes that end with us ------------------------------------------------------------------------------

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent(parent: int) -> None:
    """In the child, before exec: ask the kernel for a SIGKILL when the parent ends."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we could ask
            os._exit(1)


class _Spawner:
    """Starts every process from one thread that lives as long as we do.

    The kernel sends the parent-death signal when the *thread* that made the child ends, not the process. A
    server that was started inside `asyncio.to_thread` would die with the test's event loop and its threads.
    """

    def __init__(self) -> None:
        self._work: queue.Queue[tuple[Callable[[], subprocess.Popen[Any]], Future[subprocess.Popen[Any]]]]
        self._work = queue.Queue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            make, future = self._work.get()
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        future: Future[subprocess.Popen[Any]] = Future()
        die = functools.partial(_die_with_parent, os.getpid())
        self._work.put((functools.partial(subprocess.Popen, command, preexec_fn=die, **options), future))
        return future.result()


@functools.cache
def _spawner() -> _Spawner:
    return _Spawner()


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen` for a child that does not outlive us. Options are Popen's, but for `preexec_fn`."""
    return _spawner().start(command, **options)


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- temporary folders ---------------------------------------------------------------------------------------

_FOLDER_PREFIX = "punctual-servers-"


@functools.cache
def _session_folder() -> Path:
    """The folder of this process's servers, removed at exit. Those of processes that were killed go now."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_FOLDER_PREFIX}*"):
        owner = left.name.removeprefix(_FOLDER_PREFIX).split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-", dir=root))
    owner_pid = os.getpid()

    def remove() -> None:
        if os.getpid() == owner_pid:  # not in a fork of ours
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# -- servers ------------------------------------------------------------------------------


class Server:
    """A private server process: start, stop, kill, restart, pause, resume.

    Usable as a context manager. The port stays the same over restarts, so clients can reconnect.
    """

    kind = "server"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.kind}-", dir=_session_folder()))
        self.log_path = self.folder / "server.log"
        self._process: subprocess.Popen[Any] | None = None
        self._paused = False

    # To be filled in by each kind of server.
    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        """Whether the server takes requests now."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it isn't running."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start and wait until it answers, START_SECONDS at most. Raises ServerError with its log's end."""
        if self.running:
            return self
        with open(self.log_path, "ab") as log:
            self._process = spawn(self._command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._paused = False
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None:
                raise ServerError(f"{self.kind} ended while starting:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.kind} did not answer in {START_SECONDS:.0f} s:\n{self._log_tail()}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """End it in order (SIGTERM), with SIGKILL after STOP_SECONDS."""
        if self._process is None:
            return
        self.resume()
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it's gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._paused = False

    def restart(self) -> None:
        """Stop in order if it runs, and start on the same port and the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as from a machine that hangs."""
        if self.running and self._process:
            self._process.send_signal(signal.SIGSTOP)
            # Its other threads may answer for some moments yet.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        if self._paused and self.running and self._process:
            self._process.send_signal(signal.SIGCONT)
        self._paused = False

    def ensure_running(self) -> None:
        """Put right what a test about faults left behind: resume if paused, start if dead."""
        self.resume()
        self.start()

    def remove(self) -> None:
        """Kill it, if it runs, and delete its folder."""
        self.resume()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.remove()
