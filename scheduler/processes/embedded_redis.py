"""The embedded Redis: a real server as a child of ours, on a private Unix socket, with its files in the data
folder.

It needs no care: it ends with us, and what an unkind end leaves behind (a stale socket, a half-written
append-only file, a server whose parent was killed) is repaired by the next start. Redis only carries
(semantics.md, section 5), so that a file beyond repair is put aside and the server starts empty rather than
not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scheduler.processes.leftovers import (
    end_process,
    process_birth,
    remove_private_folder,
)
from scheduler.processes.lifeline import spawn
from scheduler.processes.redis_program import RedisStartError, find_server

SOCKET_PATH_LIMIT = 103
"""Bytes of a Unix socket's path that every system takes: 107 on Linux, 103 on macOS (unix(7), `sun_path`)."""

START_SECONDS = 30.0
"""How long the server may take until it answers, reading its append-only file included."""

STOP_SECONDS = 5.0
STATE_FILE = "server.json"
_LOG_LIMIT_BYTES = 1_000_000
_SOCKET_FOLDER_PREFIX = "punctual-redis-"

_REFUSAL = re.compile(
    r"bad file format reading the append only file|unrecoverable error reading the append only file"
    r"|unexpected end of file reading the append only file|fatal error loading the db|can't handle rdb format"
    r"|wrong signature trying to load db|short read or oom loading db|aof manifest",
    re.IGNORECASE,
)
"""What Redis and Valkey say before they exit because of a file (aof.c, rdb.c), a newer server's file
included.
"""


class EmbeddedRedis:
    """One server for one data folder. `start()` and `stop()` may be called again and again; a `spawn()` after
    a death keeps the address.
    """

    def __init__(self, data_dir: Path) -> None:
        """Nothing is started or written yet. `data_dir` is Punctual's data folder; the server's is `redis` in
        it.
        """
        self.folder = data_dir.expanduser().resolve() / "redis"
        self.log_file = self.folder / "redis.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._state_file = self.folder / STATE_FILE
        self._own_socket_folder: Path | None = None
        self._socket: Path | None = None
        self._program: str | None = None
        self._log_start = 0

    @property
    def socket(self) -> Path:
        """Where the server listens. Known after the first `start()`; raises RuntimeError before."""
        if self._socket is None:
            raise RuntimeError("Start the embedded Redis before asking for its address.")
        return self._socket

    @property
    def url(self) -> str:
        """`unix:///path/to/socket`, for `PUNCTUAL_REDIS_URL` and redis-py."""
        return f"unix://{self.socket}"

    def start(self, pause: Callable[[float], object] = time.sleep) -> None:
        """Start the server and wait until it answers. Raises `RedisStartError`, with nothing left running.

        `pause` is called with a number of seconds between two looks; what it raises ends the wait and is
        passed on.
        """
        try:
            self.spawn()
            try:
                self._wait_until_ready(pause)
            except RedisStartError:
                if not self._refused_its_file():
                    raise
                self.spawn()
                self._wait_until_ready(pause)
        except BaseException:
            self.stop()
            raise

    def spawn(self) -> subprocess.Popen[bytes]:
        """Repair what is left of an earlier server and start a new one, without waiting for it to answer."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._end_leftover()
            if self._refused_its_file():
                self._put_file_aside()
            if self._socket is None:
                self._socket = self._choose_socket()
            self._socket.unlink(missing_ok=True)
            self._program = self._program or find_server()
            self._log_start = self._prepare_log()
            with self.log_file.open("ab") as log:
                self.process = spawn(self._command(self._program, self._socket), output=log, errors=log)
            self._write_state(self.process.pid)
        except OSError as error:
            raise RedisStartError(
                f"can't start the embedded Redis in {self.folder}: {error.strerror or error}"
            ) from error
        return self.process

    def is_ready(self) -> bool:
        """Whether the server answers PING now (it does not while it still reads its append-only file)."""
        return self._socket is not None and _ask(self._socket, b"PING\r\n").startswith(b"+PONG")

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Let the server write out what it holds and end, kill it after `seconds`, and leave no socket and no
        pid behind.
        """
        process, self.process = self.process, None
        if process is not None:
            _end(process, seconds)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._state_file.unlink(missing_ok=True)
        if self._own_socket_folder is not None:
            shutil.rmtree(self._own_socket_folder, ignore_errors=True)
            self._own_socket_folder = self._socket = None

    def last_words(self) -> str:
        """The last line the server wrote since its latest start, without its time stamp; "" if there is
        none.
        """
        lines = [line for line in self._log_since_start().splitlines() if line.strip()]
        return re.sub(r"^\d+:\w \d+ \w+ \d{4} [\d:.]+ \S ", "", lines[-1]).strip() if lines else ""

    def _command(self, program: str, socket_path: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(socket_path),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": "",
            # A queue must refuse what it can't hold, never forget what it took.
            "maxmemory-policy": "noeviction",
        }
        return [
            program,
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]

    def _wait_until_ready(self, pause: Callable[[float], object]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None:
                reason = self.last_words() or "no reason given"
                raise RedisStartError(f"the embedded Redis ended at its start: {reason} (see {self.log_file})")
            if time.monotonic() >= deadline:
                raise RedisStartError(
                    f"the embedded Redis does not answer after {START_SECONDS:.0f} s (see {self.log_file})"
                )
            pause(0.01)

    def _choose_socket(self) -> Path:
        wanted = self.folder / "redis.sock"
        if len(os.fsencode(wanted)) <= SOCKET_PATH_LIMIT:
            return wanted
        # The folder of a temporary file may be too deep itself (macOS, CI runners).
        for parent in (tempfile.gettempdir(), "/tmp"):  # nosec B108
            if len(os.fsencode(parent)) + len(_SOCKET_FOLDER_PREFIX) + 20 <= SOCKET_PATH_LIMIT:
                self._own_socket_folder = Path(tempfile.mkdtemp(prefix=_SOCKET_FOLDER_PREFIX, dir=parent))  # mode 0700
                return self._own_socket_folder / "redis.sock"
        raise RedisStartError(
            f"no folder has a path short enough for a socket; set PUNCTUAL_DATA_DIR shorter than {wanted}"
        )

    def _prepare_log(self) -> int:
        """Keep the log from growing for ever; return where the coming server's lines begin, in bytes."""
        size = self.log_file.stat().st_size if self.log_file.exists() else 0
        if size > _LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
            return 0
        return size

    # What an earlier server left behind

    def _write_state(self, pid: int) -> None:
        state = {
            "pid": pid,
            "began": process_birth(pid),
            "parent": os.getpid(),
            "parent_began": process_birth(os.getpid()),
            "socket": str(self._socket),
        }
        draft = self._state_file.with_suffix(".new")
        draft.write_text(json.dumps(state), encoding="utf-8")
        draft.replace(self._state_file)

    def _end_leftover(self) -> None:
        """End the server that an earlier parent left running, and remove its socket.

        A pid is only believed together with the birth time of its process: numbers are used again.
        """
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            pid, parent = int(state["pid"]), int(state["parent"])
            began, parent_began, socket_path = (
                state["began"],
                state["parent_began"],
                Path(state["socket"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return
        if pid > 1 and began is not None and process_birth(pid) == began:
            if parent != os.getpid() and parent_began is not None and process_birth(parent) == parent_began:
                raise RedisStartError(
                    f"the Redis of this data folder is in use by process {parent}; stop that one first"
                )
            end_process(pid, began, STOP_SECONDS)
        if socket_path.parent != self.folder and socket_path != self._socket:
            remove_private_folder(socket_path.parent, _SOCKET_FOLDER_PREFIX)

    def _refused_its_file(self) -> bool:
        """Whether the server ended by itself because it can't read its append-only file."""
        if self.process is None or (self.process.poll() or 0) <= 0:
            return False
        return _REFUSAL.search(self._log_since_start()) is not None

    def _put_file_aside(self) -> None:
        aside = self.folder / f"damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
        for name in ("appendonlydir", "appendonly.aof"):  # since Redis 7; Redis 6.2
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).replace(aside.with_name(f"{aside.name}-{name}"))

    def _log_since_start(self) -> str:
        with contextlib.suppress(OSError), self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")
        return ""


def running_socket(data_dir: Path) -> Path | None:
    """The socket of the server that runs on this data folder and answers now, whoever started it; else
    None.
    """
    try:
        state = (data_dir.expanduser().resolve() / "redis" / STATE_FILE).read_text(encoding="utf-8")
        path = Path(json.loads(state)["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if _ask(path, b"PING\r\n").startswith(b"+PONG") else None


def _ask(path: Path, command: bytes, seconds: float = 1.0) -> bytes:
    """The first piece of the server's answer to one command; b"" if nobody answers."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        connection.settimeout(seconds)
        connection.connect(str(path))
        connection.sendall(command)
        return connection.recv(4096)
    return b""


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
