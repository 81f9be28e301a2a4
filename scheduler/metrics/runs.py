"""What is counted of runs and e-mails, by whoever ends them."""

from __future__ import annotations

from scheduler.database import Database
from scheduler.metrics.counters import Counters, counters
from scheduler.metrics.definitions import (
    EMAIL_ATTEMPTS,
    LOST_ATTEMPTS,
    RETRIES,
    RUN_DURATION,
    RUN_LATENESS,
    RUNS,
)


class RunMetrics:
    """Counts the ends of runs. Each call takes a microsecond or two; nothing is written before `flush`."""

    def __init__(self, counted: Counters = counters) -> None:
        self._counters = counted

    def ended(self, *, job: str, state: str, duration_s: float | None, lateness_s: float | None = None) -> None:
        """A run has ended for good. `duration_s`: of its last attempt; None where there was none (skipped).

        `lateness_s`: from when it was to begin to when its first attempt began; None for what began at no given time,
        and for what was tried before.
        """
        counted = self._counters
        counted.inc(RUNS, (job, state))
        if duration_s is not None:
            counted.observe(RUN_DURATION, (job,), duration_s)
        if lateness_s is not None:
            counted.observe(RUN_LATENESS, (job,), lateness_s if lateness_s > 0 else 0.0)

    def retried(self, *, job: str) -> None:
        """An attempt failed, and another follows."""
        self._counters.inc(RETRIES, (job,))

    def lost(self, *, job: str, count: int = 1) -> None:
        """Attempts were lost with their worker, whatever becomes of their runs."""
        self._counters.inc(LOST_ATTEMPTS, (job,), count)

    async def flush(self, database: Database) -> None:
        """Store what was counted; raises what the database raises, and then keeps it."""
        await self._counters.flush(database)


def count_email(outcome: str, count: int = 1) -> None:
    """An attempt to send an e-mail ended: `sent`, `deferred` or `dead`."""
    counters.inc(EMAIL_ATTEMPTS, (outcome,), count)
