"""When failed logins lock, as a rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.accounts.login_lock import (
    KEPT,
    MOST_FAILURES,
    WINDOW,
    address_digest,
    confirmation_digest,
    locks,
)

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def ago(*minutes: float) -> list[datetime]:
    return [NOW - timedelta(minutes=each) for each in minutes]


@pytest.mark.parametrize(
    ("failures", "locked"),
    [
        (ago(), False),
        (ago(*range(9)), False),
        (ago(*[0] * 10), True),
        (ago(*[0] * 50), True),
        (ago(*range(10)), True),  # ten within ten minutes
        (ago(*[0] * 9, 14.9), True),
        (ago(*[0] * 9, 15), False),  # ten, but not within fifteen minutes
        (ago(*[14.9] * 10), True),  # for fifteen minutes from the last of them
        (ago(*[15] * 10), False),
        (ago(14.9, *[15 + each for each in range(9)]), True),
        (ago(14.9, *[22 + each for each in range(9)]), False),
        (ago(-1, *[0] * 9), True),  # by a clock that is ahead of ours
    ],
)
def test_ten_within_fifteen_minutes_lock_for_fifteen(failures: Sequence[datetime], locked: bool) -> None:
    assert locks(failures, now=NOW) is locked


@given(st.lists(st.integers(0, 40 * 60), max_size=30), st.integers(0, 20 * 60))
def test_in_any_order_of_events(ages: list[int], later: int) -> None:
    failures = sorted((NOW - timedelta(seconds=age) for age in ages), reverse=True)
    at = NOW + timedelta(seconds=later)
    # Said in other words: some ten in a row lie within a window, and the newest failure is younger than one.
    newest = failures[:MOST_FAILURES]
    expected = len(newest) == MOST_FAILURES and (newest[0] - newest[9]) < WINDOW and at < newest[0] + WINDOW
    assert locks(failures, now=at) is expected
    # What is forgotten after KEPT changes nothing.
    assert locks([each for each in failures if each > at - KEPT], now=at) is expected


def test_digests_are_apart() -> None:
    people = [UUID(int=number) for number in range(1, 4)]
    digests = {confirmation_digest(each) for each in people} | {address_digest(str(each)) for each in people}
    assert len(digests) == 6
    assert address_digest("a@example.com") != address_digest("b@example.com")
