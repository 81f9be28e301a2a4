"""`punctual web`: a parent that binds the address and keeps N serving processes, and replaces them on SIGHUP.

The parent opens nothing but the sockets (see `listening.py`): no database, no Redis. With one process there
is a parent too, so that SIGHUP has somebody who stays while the process is replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from scheduler.processes.lifeline import Lifeline, spawn
from scheduler.processes.listening import bind, close
from scheduler.processes.signals import SignalWatch, wait_for_end
from scheduler.processes.supervision import Backoff, describe_end, say

READY_SECONDS = 30.0
"""How long a new process may take until it accepts connections."""

MARGIN_SECONDS = 3.0
"""Added to the grace time that a process gives its requests, before it is killed."""

ServingCommand = Callable[[Sequence[int], int, int], list[str]]
"""The command line of a serving process, from the descriptors of: the sockets, the pipe to report on, the
lifeline.
"""


class _Member:
    """One serving process, from its start to its end."""

    def __init__(
        self,
        command: ServingCommand,
        sockets: Sequence[int],
        lifeline: int,
        replaces: _Member | None,
    ) -> None:
        self.replaces = replaces
        self.ready = False
        self.kill_at: float | None = None
        """Set once it was told to end: when to stop waiting, by the monotonic clock."""
        self.started_at = time.monotonic()
        self.ready_pipe, write_end = os.pipe()
        try:
            self.process: subprocess.Popen[bytes] = spawn(
                command(sockets, write_end, lifeline),
                descriptors=[*sockets, write_end, lifeline],
            )
        finally:
            os.close(write_end)

    def note_ready(self) -> None:
        """Read its report: one byte once it accepts, an end-of-file if it ended before that."""
        self.ready = os.read(self.ready_pipe, 1) != b""
        self.forget_pipe()

    def forget_pipe(self) -> None:
        if self.ready_pipe >= 0:
            os.close(self.ready_pipe)
            self.ready_pipe = -1

    def retire(self, seconds: float) -> None:
        """Tell it to finish its requests and end."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + seconds
            self.process.terminate()


class Pool:
    """`processes` serving processes on one address. `run` is the whole life of it."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        processes: int,
        grace_seconds: float,
        command: ServingCommand,
    ) -> None:
        self._host, self._port, self._wanted = host, port, processes
        self._patience = grace_seconds + MARGIN_SECONDS
        self._command = command
        self._members: list[_Member] = []
        self._to_replace: list[_Member] = []
        self._backoff = Backoff()
        self._start_again_at: float | None = None
        self._sockets: list[int] = []
        self._was_ready = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status. Raises `ListenError` when the address can't
        be had.
        """
        sockets = bind(self._host, self._port, share=True)
        self._sockets = [listener.fileno() for listener in sockets]
        self._lifeline = Lifeline()
        try:
            with SignalWatch([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]) as watch:
                try:
                    for _ in range(self._wanted):
                        self._add(None)
                    return self._supervise(watch)
                finally:
                    self._stop(watch)
        finally:
            self._lifeline.close()
            close(sockets)

    def _supervise(self, watch: SignalWatch) -> int:
        while True:
            pipes = {member.ready_pipe: member for member in self._members if member.ready_pipe >= 0}
            for descriptor in watch.wait(self._seconds_to_next(), list(pipes)):
                self._note_report(pipes[descriptor])
            for number in watch.take():
                if number is not signal.SIGHUP:
                    return 0
                self._to_replace = [
                    member for member in self._members if member.kill_at is None and not member.replaces
                ]
            if not self._look_after_the_dead():
                return 1
            self._look_at_the_clock()
            self._replace_next()

    def _add(self, replaces: _Member | None) -> None:
        self._members.append(_Member(self._command, self._sockets, self._lifeline.read_end, replaces))

    def _note_report(self, member: _Member) -> None:
        member.note_ready()
        if member.ready:
            self._was_ready = True
            if member.replaces is not None:
                # Only now, with a successor that accepts: there is no moment with nobody at the socket.
                member.replaces.retire(self._patience)
                member.replaces = None

    def _look_after_the_dead(self) -> bool:
        """Remove those that ended and see to their successors; False when the very first start failed."""
        for member in [member for member in self._members if member.process.poll() is not None]:
            member.forget_pipe()
            self._members.remove(member)
            self._to_replace = [other for other in self._to_replace if other is not member]
            if member.kill_at is not None:
                continue
            status = describe_end(member.process.returncode)
            if not self._was_ready:
                if member.process.returncode != 1:  # with 1 it has said why itself, in one line
                    say(f"web ended before it could serve ({status})")
                return False
            if member.replaces is not None and member.replaces.process.poll() is None:
                self._to_replace.clear()
                say(f"web: the new process ended before it could serve ({status}); the old ones stay")
                continue
            for other in self._members:
                if other.replaces is member:
                    other.replaces = None
            pause = self._backoff.next_pause()
            self._start_again_at = time.monotonic() + pause
            say(f"web process {member.process.pid} ended ({status}); a new one starts in {pause:g} s")
        return True

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for member in self._members:
            late = member.kill_at is not None and now >= member.kill_at
            stuck = member.ready_pipe >= 0 and now >= member.started_at + READY_SECONDS
            if late or stuck:
                member.process.kill()
        lacking = self._wanted - sum(1 for member in self._members if member.kill_at is None and not member.replaces)
        if lacking <= 0:
            self._start_again_at = None
        elif self._start_again_at is None or now >= self._start_again_at:
            for _ in range(lacking):
                self._add(None)
            self._start_again_at = None

    def _replace_next(self) -> None:
        """Begin the next replacement, one at a time."""
        if self._to_replace and not any(member.replaces for member in self._members):
            self._add(self._to_replace.pop(0))

    def _seconds_to_next(self) -> float:
        times = [member.kill_at for member in self._members if member.kill_at is not None]
        times += [member.started_at + READY_SECONDS for member in self._members if member.ready_pipe >= 0]
        if self._start_again_at is not None:
            times.append(self._start_again_at)
        return max(0.0, min(times) - time.monotonic()) if times else 60.0

    def _stop(self, watch: SignalWatch) -> None:
        for member in self._members:
            member.retire(self._patience)
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline and not watch.take():  # a second signal hurries
            if wait_for_end([member.process for member in self._members], 0.1):
                break
        for member in self._members:
            member.process.kill()
            member.process.wait()
            member.forget_pipe()


def report_ready(descriptor: int) -> Callable[[], None]:
    """The child's side: a function that tells the parent, once, that connections are accepted."""
    os.set_inheritable(descriptor, False)
    open_descriptor: list[int] = [descriptor]

    def ready() -> None:
        if open_descriptor:
            number = open_descriptor.pop()
            os.write(number, b"1")
            os.close(number)

    return ready
