"""A breaker: while the mail server is away, nothing is claimed, and now and then one e-mail tries."""

from __future__ import annotations

import time
from collections.abc import Callable

from scheduler.runs.backoff import Backoff

# Short, as reminders are to go out seconds after the server is back; one try a time costs nothing.
_BACKOFF = Backoff(base_s=1.0, cap_s=10.0, least_s=0.5)


class Breaker:
    """Closed: send. Open: don't, for a while. After that one try decides.

    On the monotonic clock: one that is set back must not hold up the mail.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._failures = 0
        self._retry_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether sending is off just now."""
        return self.wait_s > 0

    @property
    def is_probing(self) -> bool:
        """Whether the next try is the one that decides."""
        return self._retry_at is not None

    @property
    def wait_s(self) -> float:
        """Seconds until the next try."""
        return 0.0 if self._retry_at is None else max(0.0, self._retry_at - self._seconds())

    def failed(self) -> None:
        """The server could not be reached. Failures of one try count once."""
        if not self.is_open:
            self._failures += 1
            self._retry_at = self._seconds() + _BACKOFF.delay(self._failures)

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = 0
        self._retry_at = None
