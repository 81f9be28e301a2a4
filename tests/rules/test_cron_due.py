"""What becomes of firings whose time has come: on time, missed, made up for or left out."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.clock import time_zones
from scheduler.schedules.cron import parse_cron
from scheduler.schedules.due import ON_TIME, Firing, plan_firings

INSTANT = timedelta(microseconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def plan(expression: str, missed: str, next_run_at: str, now: str) -> list[Firing]:
    cron = parse_cron(expression, "UTC")
    return plan_firings(cron, missed=missed, next_run_at=utc(next_run_at), now=utc(now))


@pytest.mark.parametrize("missed", ["once", "none"])
@pytest.mark.parametrize("now", ["2026-03-02 09:00", "2026-03-02 09:00:01.5", "2026-03-02 09:01"])
def test_up_to_a_minute_is_on_time(missed: str, now: str) -> None:
    assert plan("0 9 * * *", missed, "2026-03-02 09:00", now) == [Firing(utc("2026-03-02 09:00"))]


def test_two_on_time_are_two() -> None:
    both = [Firing(utc("2026-03-02 09:00")), Firing(utc("2026-03-02 09:01"))]
    for missed in ("once", "none"):
        assert plan("* * * * *", missed, "2026-03-02 09:00", "2026-03-02 09:01") == both


def test_a_minute_and_a_microsecond_is_late() -> None:
    nine = utc("2026-03-02 09:00")
    late = "2026-03-02 09:01:00.000001"
    assert plan("0 9 * * *", "once", "2026-03-02 09:00", late) == [Firing(nine)]
    assert plan("0 9 * * *", "none", "2026-03-02 09:00", late) == [Firing(nine, missed=1, is_left_out=True)]


def test_once_is_one_run_for_all_that_was_missed() -> None:
    # Down from Monday to Thursday noon.
    assert plan("0 9 * * *", "once", "2026-03-02 09:00", "2026-03-05 12:00") == [
        Firing(utc("2026-03-05 09:00"), missed=3)
    ]
    # The newest is on time, and stands for those before it as well.
    assert plan("* * * * *", "once", "2026-03-02 09:00", "2026-03-02 09:10:30") == [
        Firing(utc("2026-03-02 09:10"), missed=10)
    ]
    assert plan("0 9 * * *", "once", "2026-03-02 09:00", "2026-03-03 09:00") == [
        Firing(utc("2026-03-03 09:00"), missed=1)
    ]


def test_none_leaves_out_what_was_missed_and_says_how_many() -> None:
    assert plan("0 9 * * *", "none", "2026-03-02 09:00", "2026-03-05 12:00") == [
        Firing(utc("2026-03-05 09:00"), missed=4, is_left_out=True)
    ]
    assert plan("* * * * *", "none", "2026-03-02 09:00", "2026-03-02 09:10:30") == [
        Firing(utc("2026-03-02 09:09"), missed=10, is_left_out=True),
        Firing(utc("2026-03-02 09:10")),
    ]


def test_what_the_rule_no_longer_says_does_not_fire() -> None:
    """The zone's rules changed since `next_run_at` was written."""
    assert plan("0 9 * * *", "once", "2026-03-02 08:00", "2026-03-02 08:30") == []
    assert plan("0 9 * * *", "once", "2026-03-02 08:00", "2026-03-02 09:00") == [Firing(utc("2026-03-02 09:00"))]


EXPRESSIONS = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0,30 1-3 * * *",
        "0 */5 * * MON",
        "15 0 1,15 * *",
        "*/20 1,2 * * SUN",
        "0 0 L * *",
        "59 23 29 2 *",
    ]
)
ZONES = st.sampled_from(sorted(time_zones()))
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2037, 12, 1), timezones=st.just(UTC))


@given(EXPRESSIONS, ZONES, INSTANTS, st.timedeltas(timedelta(0), timedelta(days=25)))
def test_counting_and_the_newest_are_what_the_firings_are(
    expression: str, timezone: str, after: datetime, span: timedelta
) -> None:
    cron = parse_cron(expression, timezone)
    firings = list(cron.firings(after, after + span))
    assert cron.count(after, after + span) == len(firings)
    assert cron.newest(after, after + span) == (firings[-1] if firings else None)


@given(
    EXPRESSIONS,
    ZONES,
    INSTANTS,
    st.sampled_from(["once", "none"]),
    st.timedeltas(timedelta(0), timedelta(minutes=5)) | st.timedeltas(timedelta(0), timedelta(days=20)),
)
def test_every_firing_is_accounted_for(
    expression: str, timezone: str, start: datetime, missed: str, span: timedelta
) -> None:
    cron = parse_cron(expression, timezone)
    next_run_at = cron.next_after(start)
    assert next_run_at is not None
    now = next_run_at + span
    firings = list(cron.firings(next_run_at - INSTANT, now))
    planned = plan_firings(cron, missed=missed, next_run_at=next_run_at, now=now)
    assert sum(firing.missed + (not firing.is_left_out) for firing in planned) == len(firings)
    assert {firing.scheduled_for for firing in planned} <= set(firings)
    late = [firing for firing in firings if now - firing > ON_TIME]
    if not late:
        assert planned == [Firing(firing) for firing in firings]
    elif missed == "once":
        assert [firing.scheduled_for for firing in planned] == firings[-1:]
        assert not planned[0].is_left_out
    else:
        assert [firing.scheduled_for for firing in planned] == firings[len(late) - 1 :]
        assert [firing.is_left_out for firing in planned] == [True, *[False] * (len(firings) - len(late))]


def test_a_long_downtime_costs_little() -> None:
    cron = parse_cron("* * * * *", "Europe/Berlin")
    began = time.perf_counter()
    for _ in range(100):
        planned = plan_firings(cron, missed="once", next_run_at=utc("2026-01-01 00:00"), now=utc("2027-01-01 00:00:30"))
    assert planned == [Firing(utc("2027-01-01 00:00"), missed=365 * 24 * 60)]
    # One by one, half a million firings take about a second.
    assert (time.perf_counter() - began) / 100 < 0.02
