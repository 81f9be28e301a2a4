"""When a reminder fires: elapsed time before the due time, or before 09:00 local of an all-day task."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.clock import time_zones, zone
from scheduler.reminders.times import LATE_AFTER, fire_time, is_late
from scheduler.tasks.create import start_of_day

ZONES = st.sampled_from(sorted(time_zones()))
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30), timezones=st.just(UTC))
OFFSETS = st.integers(0, 366 * 24 * 60)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("local_date", "timezone", "offset", "fires"),
    [
        ("2026-03-02", "Europe/Berlin", 0, "2026-03-02 08:00"),
        ("2026-03-02", "Europe/Berlin", 30, "2026-03-02 07:30"),
        ("2026-07-01", "Europe/Berlin", 0, "2026-07-01 07:00"),
        # The clocks change in the night before 09:00: the anchor is 09:00 on the new clock.
        ("2026-03-08", "America/New_York", 0, "2026-03-08 13:00"),
        ("2026-11-01", "America/New_York", 0, "2026-11-01 14:00"),
        # A day before is 24 hours before, which on such a date is another time on the clock.
        ("2026-03-08", "America/New_York", 24 * 60, "2026-03-07 13:00"),
        ("2026-11-01", "America/New_York", 24 * 60, "2026-10-31 14:00"),
        ("2026-10-04", "Australia/Lord_Howe", 0, "2026-10-03 22:00"),
        ("2026-03-02", "Pacific/Kiritimati", 0, "2026-03-01 19:00"),
        ("2026-03-02", "Pacific/Pago_Pago", 0, "2026-03-02 20:00"),
        ("2026-03-02", "Asia/Kathmandu", 15, "2026-03-02 03:00"),
        # Midnight does not exist on these dates.
        ("2018-11-04", "America/Sao_Paulo", 0, "2018-11-04 11:00"),
        ("2026-03-08", "America/Havana", 0, "2026-03-08 13:00"),
        ("2026-11-01", "America/Havana", 0, "2026-11-01 14:00"),
    ],
)
def test_all_day_counts_from_nine_on_the_tasks_clock(local_date: str, timezone: str, offset: int, fires: str) -> None:
    midnight = datetime.combine(date.fromisoformat(local_date), time(0), tzinfo=ZoneInfo(timezone))
    due_at = start_of_day(midnight.astimezone(UTC), all_day=True, timezone=timezone)
    assert due_at is not None
    assert fire_time(offset, due_at=due_at, all_day=True, timezone=timezone) == utc(fires)


@given(ZONES, INSTANTS, OFFSETS)
@example("America/New_York", datetime(2026, 3, 8, 7, 30, tzinfo=UTC), 60)
def test_an_offset_is_elapsed_time_whatever_the_zone(timezone: str, due_at: datetime, offset: int) -> None:
    local = due_at.astimezone(ZoneInfo(timezone))
    fires = fire_time(offset, due_at=local, all_day=False, timezone=timezone)
    assert fires == due_at - timedelta(minutes=offset)
    assert fires.utcoffset() == timedelta(0)


@given(ZONES, INSTANTS)
@example("America/Sao_Paulo", datetime(2018, 11, 4, 12, tzinfo=UTC))
@example("America/Havana", datetime(2026, 11, 1, 4, 30, tzinfo=UTC))
@example("Pacific/Apia", datetime(2011, 12, 30, 9, tzinfo=UTC))
def test_the_start_of_a_day_is_its_first_instant_in_every_zone(timezone: str, inside: datetime) -> None:
    start = start_of_day(inside, all_day=True, timezone=timezone)
    assert start is not None
    instant = start.astimezone(UTC)
    local = instant.astimezone(ZoneInfo(timezone))
    assert local.date() == inside.astimezone(ZoneInfo(timezone)).date()
    assert instant <= inside
    before = (instant - timedelta(microseconds=1)).astimezone(ZoneInfo(timezone))
    assert before.date() != local.date()
    # Stored and read again, it stays what it is.
    assert start_of_day(instant, all_day=True, timezone=timezone) == start


@given(ZONES, INSTANTS)
@example("America/Sao_Paulo", datetime(2018, 11, 4, 12, tzinfo=UTC))
def test_all_day_fires_at_nine_of_the_due_date_in_every_zone(timezone: str, inside: datetime) -> None:
    due_at = start_of_day(inside, all_day=True, timezone=timezone)
    assert due_at is not None
    fires = fire_time(0, due_at=due_at, all_day=True, timezone=timezone).astimezone(ZoneInfo(timezone))
    assert fires.date() == inside.astimezone(ZoneInfo(timezone)).date()
    assert fires.time() == time(9)


def test_no_due_time_has_no_start_and_a_timed_one_is_kept() -> None:
    instant = utc("2026-03-02 12:34")
    assert start_of_day(None, all_day=True, timezone="UTC") is None
    assert start_of_day(instant, all_day=False, timezone="Asia/Tokyo") == instant


def test_late_is_more_than_sixty_seconds() -> None:
    fire_at = utc("2026-03-02 12:00")
    assert timedelta(seconds=60) == LATE_AFTER
    assert not is_late(fire_at, fire_at + timedelta(seconds=60))
    assert is_late(fire_at, fire_at + timedelta(seconds=60, microseconds=1))
    assert not is_late(fire_at, fire_at - timedelta(days=1))


@pytest.mark.parametrize("name", ["", "localtime", "Nowhere/City", "europe/berlin", "../etc/passwd", "posix/UTC"])
def test_what_is_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        zone(name)
