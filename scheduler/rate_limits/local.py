"""The same limits in one process's memory: what stands in while Redis is away."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from scheduler.rate_limits.rule import MICROSECONDS, Limit, admits

MOST_BUCKETS = 50_000
"""Some 10 MB. Past them the bucket that was asked longest ago is forgotten."""


class LocalBuckets:
    """Buckets by key, on the monotonic clock."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic, *, most: int = MOST_BUCKETS) -> None:
        self._seconds = seconds
        self._most = most
        self._empty_at: OrderedDict[str, int] = OrderedDict()
        """Microseconds at which each bucket has leaked dry."""

    def take(self, buckets: Sequence[tuple[str, Limit]]) -> list[tuple[bool, int]]:
        """One request into each of `buckets`, or into none, when one of them refuses it.

        Whether each would take it, and its debt afterwards, in microseconds.
        """
        now = self._now()
        debts = [min(max(0, self._empty_at.get(key, 0) - now), limit.period_us) for key, limit in buckets]
        answers = [admits(debt, limit) for debt, (_, limit) in zip(debts, buckets, strict=True)]
        if all(answers):
            debts = [debt + limit.interval_us for debt, (_, limit) in zip(debts, buckets, strict=True)]
            for debt, (key, _) in zip(debts, buckets, strict=True):
                self.note(key, debt)
        return list(zip(answers, debts, strict=True))

    def note(self, key: str, debt_us: int) -> None:
        """What the shared bucket of this key holds, so that a limit that was used up stays so when Redis goes away."""
        self._empty_at[key] = self._now() + debt_us
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > self._most:
            self._empty_at.popitem(last=False)

    def _now(self) -> int:
        return int(self._seconds() * MICROSECONDS)
