"""When to try again: exponential backoff with full jitter.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: a delay drawn evenly from 0
to the
exponential bound spreads the tries of many better than any other of the schemes compared there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds: the bound is `base_s * 2 ** (attempt - 1)`, at most `cap_s`; the delay never falls below
    `least_s`."""

    base_s: float
    cap_s: float
    least_s: float = 0.0

    def bound(self, attempt: int) -> float:
        """The longest delay after the `attempt`-th try (from 1), in seconds."""
        # The exponent is capped as well: 2.0 ** 1024 overflows.
        return min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 63))

    def delay(self, attempt: int, rng: random.Random | None = None) -> float:
        """A delay after the `attempt`-th try (from 1), in seconds."""
        drawn = (rng or random).uniform(0, self.bound(attempt))
        return max(self.least_s, drawn)
