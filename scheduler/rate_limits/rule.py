"""The rule: the generic cell rate algorithm (GCRA; ITU-T I.371, A.1), a leaky bucket that is one number.

That number is the bucket's *debt*: for how many microseconds its contents still have to leak. Each request adds the
limit's interval; one that would make the debt longer than the limit's period is refused, and adds nothing. So a fresh
caller may use the whole count at once, and after that as many as leak; there is no window at whose edge it starts anew.
`shared` has the same rule in Lua; a test holds the one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

MICROSECONDS = 1_000_000
_SECONDS_OF = {"s": 1, "min": 60, "h": 3600}
OFF = "off"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in so long."""

    count: int
    period_us: int

    @property
    def interval_us(self) -> int:
        """What one request adds to the debt. Rounded down, so that the whole count fits into the period."""
        return max(1, self.period_us // self.count)


class Limits(NamedTuple):
    """What limits whom, by the settings; None: off."""

    user: Limit | None
    """Of a person, whatever they are signed in with."""
    password: Limit | None
    """Of an address, where passwords and codes can be guessed."""


class Standing(NamedTuple):
    """What a request found: whether it is let in, and what is left of the limit after it."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int
    """Until the whole count is there again; of a refusal until one more is let in."""


def parse(text: str) -> Limit | None:
    """`600/min`, `10/s`, `5/h`; None for `off`. Raises ValueError for anything else."""
    if text == OFF:
        return None
    count, _, unit = text.partition("/")
    if not (count.isascii() and count.isdigit() and int(count) > 0 and unit in _SECONDS_OF):
        raise ValueError("must be like 600/min, 10/s or off")
    return Limit(int(count), _SECONDS_OF[unit] * MICROSECONDS)


def admits(debt_us: int, limit: Limit) -> bool:
    """Whether a bucket with this debt takes one more request."""
    return debt_us + limit.interval_us <= limit.period_us


def standing(debt_us: int, limit: Limit, *, allowed: bool) -> Standing:
    """What the caller is told, from the debt after the request (that of a refusal is the same as before)."""
    if not allowed:
        return Standing(False, limit.count, 0, max(1, _seconds(debt_us + limit.interval_us - limit.period_us)))
    remaining = (limit.period_us - debt_us) // limit.interval_us
    return Standing(True, limit.count, min(limit.count, remaining), _seconds(debt_us))


def strictest(found: list[Standing]) -> Standing | None:
    """Of several buckets that one request went into, the one to tell of: the refusal that lasts longest, else the one
    with the least left."""
    return min(found, key=lambda each: (each.allowed, each.remaining, -each.reset_s), default=None)


def _seconds(microseconds: int) -> int:
    return -(-microseconds // MICROSECONDS)
