"""Rate limits: the leaky bucket, as a rule over a number and in one process's memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.rate_limits.local import LocalBuckets
from scheduler.rate_limits.rule import MICROSECONDS, Limit, Standing, admits, parse, standing, strictest

TEN = Limit(10, 60 * MICROSECONDS)
limits = st.builds(Limit, st.integers(1, 5000), st.sampled_from([MICROSECONDS, 60 * MICROSECONDS, 3600 * MICROSECONDS]))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_what_the_settings_say() -> None:
    assert parse("off") is None
    assert parse("600/min") == Limit(600, 60_000_000)
    assert parse("10/s") == Limit(10, 1_000_000)
    assert parse("5/h") == Limit(5, 3_600_000_000)


@pytest.mark.parametrize(
    "text",
    ["", "OFF", "10", "10/", "/min", "0/min", "-1/min", "1.5/s", "10/day", "10/min/s", " 10/min", "²/min", "١/s"],
)
def test_what_no_limit_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="must be like"):
        parse(text)


@given(limits)
def test_a_fresh_caller_may_use_the_whole_count_at_once_and_no_more(limit: Limit) -> None:
    debt = 0
    for used in range(1, limit.count + 1):
        assert admits(debt, limit)
        debt += limit.interval_us
        assert standing(debt, limit, allowed=True).remaining >= limit.count - used
    # Rounding gives away less than one interval for each thousand of the count.
    given_away = 0
    while admits(debt, limit):
        debt += limit.interval_us
        given_away += 1
    assert given_away <= limit.count * limit.count // limit.period_us


@given(limits, st.lists(st.integers(0, 3_600_000_000), max_size=60))
def test_in_any_stretch_of_time_no_more_than_the_count_and_what_leaked_meanwhile(
    limit: Limit, pauses: list[int]
) -> None:
    """Of `n` periods at most the count of `n + 1` is let in."""
    buckets, clock = LocalBuckets(), Clock()
    buckets._seconds = clock
    let_in: list[int] = []
    now = 0
    for pause in pauses:
        now += pause
        clock.seconds = now / MICROSECONDS
        ((allowed, _),) = buckets.take([("a", limit)])
        if allowed:
            let_in.append(now)
    for start in range(len(let_in)):
        for end in range(start, len(let_in)):
            stretch = let_in[end] - let_in[start]
            # A microsecond of each request for the clock's own rounding.
            assert end - start + 1 <= (limit.period_us + stretch + (end - start)) // limit.interval_us


def test_what_the_caller_is_told() -> None:
    assert standing(0, TEN, allowed=True) == Standing(True, 10, 10, 0)
    assert standing(6_000_000, TEN, allowed=True) == Standing(True, 10, 9, 6)
    assert standing(6_000_001, TEN, allowed=True) == Standing(True, 10, 8, 7)
    assert standing(60_000_000, TEN, allowed=True) == Standing(True, 10, 0, 60)
    assert standing(60_000_000, TEN, allowed=False) == Standing(False, 10, 0, 6)
    assert standing(54_000_001, TEN, allowed=False) == Standing(False, 10, 0, 1)


@given(limits, st.integers(0, 3_600_000_000))
def test_who_waits_as_long_as_told_is_let_in(limit: Limit, debt: int) -> None:
    debt = min(debt, limit.period_us)
    if not admits(debt, limit):
        wait = standing(debt, limit, allowed=False).reset_s
        assert wait >= 1
        assert admits(max(0, debt - wait * MICROSECONDS), limit)
    told = standing(debt, limit, allowed=True)
    assert 0 <= told.remaining <= limit.count
    assert max(0, debt - told.reset_s * MICROSECONDS) == 0


def test_the_strictest_of_several_is_told() -> None:
    roomy, narrow = Standing(True, 600, 599, 1), Standing(True, 10, 2, 48)
    refused, longer = Standing(False, 10, 0, 6), Standing(False, 600, 0, 30)
    assert strictest([]) is None
    assert strictest([roomy, narrow]) == narrow
    assert strictest([roomy, refused, narrow]) == refused
    assert strictest([refused, longer]) == longer


# -- in one process's memory ---------------------------------------------------------------------------------


def test_each_key_has_a_bucket_of_its_own_that_leaks() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    two = Limit(2, 10 * MICROSECONDS)
    answers = [buckets.take([("a", two)])[0] for _ in range(3)]
    assert answers == [(True, 5_000_000), (True, 10_000_000), (False, 10_000_000)]
    assert buckets.take([("b", two)]) == [(True, 5_000_000)]
    clock.seconds += 5
    assert [buckets.take([("a", two)])[0][0] for _ in range(2)] == [True, False]
    clock.seconds += 1000
    assert [buckets.take([("a", two)])[0][0] for _ in range(3)] == [True, True, False]


def test_a_request_that_one_bucket_refuses_goes_into_none() -> None:
    buckets = LocalBuckets(Clock())
    one, many = Limit(1, 10 * MICROSECONDS), Limit(5, 10 * MICROSECONDS)
    assert [allowed for allowed, _ in buckets.take([("a", one), ("b", many)])] == [True, True]
    for _ in range(10):
        assert [allowed for allowed, _ in buckets.take([("a", one), ("b", many)])] == [False, True]
    assert [buckets.take([("b", many)])[0][0] for _ in range(5)] == [True] * 4 + [False]


def test_what_redis_said_counts_when_it_is_gone() -> None:
    buckets = LocalBuckets(Clock())
    buckets.note("a", TEN.period_us)
    assert buckets.take([("a", TEN)]) == [(False, TEN.period_us)]
    assert buckets.take([("b", TEN)])[0][0] is True


def test_a_shorter_period_than_before_locks_nobody_out_for_the_longer_one() -> None:
    buckets = LocalBuckets(Clock())
    buckets.note("a", 3600 * MICROSECONDS)
    assert buckets.take([("a", TEN)]) == [(False, TEN.period_us)]


def test_memory_is_bounded() -> None:
    buckets = LocalBuckets(Clock(), most=3)
    for key in ("a", "b", "c", "a", "d"):
        buckets.take([(key, TEN)])
    assert set(buckets._empty_at) == {"c", "a", "d"}
