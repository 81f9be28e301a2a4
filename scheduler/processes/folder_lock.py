"""One `punctual up` to a data folder: an advisory lock that the kernel takes back when its holder dies,
however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

NAME = "punctual.lock"


class FolderInUse(Exception):
    """Another `punctual up` runs on this data folder; `pid` is its process, if it can be told."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"punctual is already running on {folder} ({who}); stop it first or set PUNCTUAL_DATA_DIR")


class FolderLock:
    """Held from `acquire` to `release` or the end of the process. The file holds the holder's pid, for
    people.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting. Raises `FolderInUse`, and OSError when the folder can't be
        written.
        """
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUse(self.path.parent, _read_pid(descriptor)) from None
            else:
                # The holder before us may have removed the file between our open and our lock: then what we
                # hold is a lock on a file that nobody else will ever see.
                if self._is_at_path(descriptor):
                    self._descriptor, descriptor = descriptor, -1
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Remove the file and let go of the lock."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)  # while it is still ours
            os.close(self._descriptor)
            self._descriptor = None

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False


def holder(folder: Path) -> int | None:
    """The pid of the `punctual up` that runs on this data folder, None if none does. Takes no lock."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def _read_pid(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, 20, 0)) or None
    except (OSError, ValueError):
        return None
