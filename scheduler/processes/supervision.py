"""A child process that is to run all the time: started, watched, started again after a pause that grows."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.settings import Settings

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
STEADY_AFTER_SECONDS = 60.0
"""After this long without an end all was well: the next end counts as a first one again."""


class Backoff:
    """The pauses before new starts of something that ends too soon: doubling, and small again after a steady
    run.
    """

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        self._last_end = time.monotonic()

    def next_pause(self) -> float:
        """Seconds to wait after the end that was just seen."""
        now = time.monotonic()
        if now - self._last_end >= STEADY_AFTER_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        self._last_end = now
        pause = self._pause
        self._pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        return pause


class Supervised:
    """A child with a name, the function that starts it, and what became of it. It is up to the caller to
    look.
    """

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.start_again_at: float | None = None
        """When to start it again, by the monotonic clock; None while it runs or was never started."""
        self._start = start
        self._backoff = Backoff()

    def start(self) -> None:
        """Start it now. Raises what the start raises."""
        self.start_again_at = None
        self.process = self._start()

    def poll(self) -> int | None:
        """Its exit status if it ended (negative: the signal that ended it), None while it runs or waits for
        its start.
        """
        return None if self.process is None else self.process.poll()

    def note_end(self) -> float:
        """Reckon with its end: set the time of the next start, and return the pause until then in seconds."""
        pause = self._backoff.next_pause()
        self.process = None
        self.start_again_at = time.monotonic() + pause
        return pause


def describe_end(status: int) -> str:
    """An exit status in words: `exit status 1`, `SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def say(text: str) -> None:
    """Tell the person at the terminal; standard output belongs to the log lines."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"punctual: {text}", file=sys.stderr, flush=True)


def record(settings: Settings, level: str, event: str, **fields: object) -> None:
    """A log line like those of `scheduler.logs`, without what that needs to import: a supervisor stays
    light.
    """
    if settings.log_format == "json":
        stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {"timestamp": stamp, "level": level, "event": event, "logger": "processes"} | fields
        with contextlib.suppress(OSError):
            print(json.dumps(line), flush=True)
