"""A breaker: while the mail server is away, nothing is claimed, and now and then one e-mail tries."""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.runs.backoff import Backoff

# Short, as reminders are to go out seconds after the server is back; one try a time costs nothing.
_BACKOFF = Backoff(base_s=1.0, cap_s=10.0, least_s=0.5)


class Breaker:
    """Closed: send. Open: don't, until `retry_at`. After that one try decides."""

    def __init__(self) -> None:
        self._failures = 0
        self.retry_at: datetime | None = None

    def is_open(self, now: datetime) -> bool:
        """Whether sending is off at `now`."""
        return self.retry_at is not None and now < self.retry_at

    @property
    def is_probing(self) -> bool:
        """Whether the next try is the one that decides."""
        return self.retry_at is not None

    def failed(self, now: datetime) -> datetime:
        """The server could not be reached. Returns when to try again; failures of one try count once."""
        if self.retry_at is None or now >= self.retry_at:
            self._failures += 1
            self.retry_at = now + timedelta(seconds=_BACKOFF.delay(self._failures))
        return self.retry_at

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = 0
        self.retry_at = None
