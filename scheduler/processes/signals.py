"""Signals for a supervisor's loop: collected as they come, and a wake-up for the `select` that it sleeps
in.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from types import FrameType, TracebackType
from typing import Any, Protocol, Self


class SignalWatch:
    """While entered, the given signals (and SIGCHLD) end `wait` early instead of ending the process.

    A signal that the caller of this program had set to be ignored stays ignored: `nohup` means it.
    """

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = [*signals, signal.SIGCHLD]
        self._before: dict[signal.Signals, Any] = {}
        self._arrived: list[signal.Signals] = []

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._signals:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Counted here and not by the bytes in the socket: a child between fork and exec shares that socket,
        # and a Ctrl-C in that moment would count twice.
        if number != signal.SIGCHLD:
            self._arrived.append(signal.Signals(number))

    def take(self) -> list[signal.Signals]:
        """The signals that came since the last call, oldest first (SIGCHLD left out)."""
        arrived = self._arrived[:]
        del self._arrived[: len(arrived)]
        return arrived

    def wait(self, seconds: float, descriptors: Sequence[int] = ()) -> list[int]:
        """Sleep until a signal comes, a child ends, or one of `descriptors` can be read; return those that
        can.
        """
        if self._arrived:
            seconds = 0.0
        wakeup = self._reader.fileno()
        readable, _, _ = select.select([wakeup, *descriptors], [], [], max(0.0, seconds))
        if wakeup in readable:
            try:
                while self._reader.recv(4096):
                    pass
            except BlockingIOError:
                pass
        return [descriptor for descriptor in readable if descriptor != wakeup]


def has_terminal() -> bool:
    """Whether there is a terminal whose end SIGHUP tells of. Where there is none, SIGHUP is a request to read the
    configuration again, as of every service."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Pollable(Protocol):
    """Something that ends some time, like `subprocess.Popen`."""

    def poll(self) -> int | None: ...


def wait_for_end(processes: Iterable[Pollable], seconds: float) -> bool:
    """Wait until all `processes` ended, at most `seconds`; tell whether they did."""
    deadline = time.monotonic() + seconds
    remaining = list(processes)
    while True:
        remaining = [process for process in remaining if process.poll() is None]
        if not remaining:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
