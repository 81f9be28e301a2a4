"""Retry delays: exponential, full jitter, bounded at both ends."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from scheduler.outbox.breaker import Breaker
from scheduler.outbox.send import RETRY
from scheduler.runs.backoff import Backoff

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def test_the_bound_doubles_until_its_cap() -> None:
    backoff = Backoff(base_s=60, cap_s=3600)
    assert [backoff.bound(attempt) for attempt in range(1, 9)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


@given(st.integers(1, 10**6), st.floats(0.001, 3600), st.floats(1, 7), st.integers(0, 2**32))
def test_a_delay_lies_between_its_bounds(attempt: int, base_s: float, factor: float, seed: int) -> None:
    backoff = Backoff(base_s=base_s, cap_s=base_s * factor, least_s=base_s / 2)
    delay = backoff.delay(attempt, random.Random(seed))
    assert base_s / 2 <= delay <= backoff.bound(attempt) <= base_s * factor


def test_delays_are_spread_over_the_whole_of_their_range() -> None:
    rng = random.Random(1)
    delays = sorted(Backoff(base_s=100, cap_s=100).delay(1, rng) for _ in range(1000))
    assert delays[0] < 2 and delays[-1] > 98
    assert 40 < delays[500] < 60


def test_three_days_of_tries_do_not_trouble_a_server() -> None:
    rng = random.Random(1)
    passed, attempts = timedelta(0), 0
    while passed < timedelta(days=3):
        attempts += 1
        passed += timedelta(seconds=RETRY.delay(attempts, rng))
    assert 72 <= attempts <= 500


class Seconds:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_opens_lets_one_probe_decide_and_closes() -> None:
    seconds = Seconds()
    breaker = Breaker(seconds)
    assert (breaker.is_open, breaker.is_probing, breaker.wait_s) == (False, False, 0.0)
    breaker.failed()
    assert 0.5 <= breaker.wait_s <= 1
    assert (breaker.is_open, breaker.is_probing) == (True, True)
    seconds.now += breaker.wait_s
    assert (breaker.is_open, breaker.is_probing) == (False, True)
    breaker.succeeded()
    assert (breaker.is_open, breaker.is_probing) == (False, False)


def test_failures_of_one_try_count_once_and_the_wait_is_bounded() -> None:
    seconds = Seconds()
    breaker = Breaker(seconds)
    breaker.failed()
    first = breaker.wait_s
    for _ in range(100):
        breaker.failed()
    assert breaker.wait_s == first
    for _ in range(2000):
        seconds.now += breaker.wait_s
        breaker.failed()
        assert 0.499 <= breaker.wait_s <= 10  # less by what floats lose
