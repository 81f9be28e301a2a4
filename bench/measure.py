"""What a measurement is: rates, quantiles, medians, and waiting with an end to it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class BenchError(RuntimeError):
    """The benchmark can't go on, or what it measured did not do its work; the message says which."""


@dataclass(frozen=True)
class Rate:
    """So many things in so many seconds; `statements` is what MariaDB was asked meanwhile."""

    n: int
    seconds: float
    statements: int | None = None

    @property
    def per_second(self) -> float:
        return self.n / self.seconds

    @property
    def statements_each(self) -> float | None:
        return None if self.statements is None else self.statements / self.n


def median(values: Sequence[float]) -> float:
    """The median; of an even number of values the mean of the two in the middle."""
    return statistics.median(values)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def wait_until(condition: Callable[[], bool], seconds: float, what: str, *, every: float = 0.05) -> None:
    """Poll until the condition holds. Raises BenchError after `seconds`, naming `what` did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not there after {seconds:.0f} s")
        time.sleep(every)
