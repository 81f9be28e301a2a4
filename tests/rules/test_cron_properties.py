"""Cron over every zone and its real changes of the clock, held against the rules of semantics 4.

The oracle walks minute by minute, as Debian's cron does, and shares nothing with what it is held against: the
expression is drawn together with what its fields mean, and the changes of the clock are found by another walk.

`CRON_EXAMPLES=20000 pytest tests/rules/test_cron_properties.py --timeout 0` looks further than CI does.
"""

from __future__ import annotations

import calendar
import os
import struct
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scheduler.clock import time_zones
from scheduler.schedules import cron as cron_rules
from scheduler.schedules.cron import parse_cron

EXAMPLES = int(os.environ.get("CRON_EXAMPLES", "60"))
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
FIRST_YEAR, LAST_YEAR = 1970, 2037
AROUND = timedelta(days=2)
ZONES = sorted(time_zones())

DAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


# -- the oracle ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A field as text, and what it means."""

    text: str
    matches: Callable[[Any], bool]

    @property
    def is_wild(self) -> bool:
        return self.text.startswith("*")


@dataclass(frozen=True)
class Drawn:
    """A cron expression and what it means."""

    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def text(self) -> str:
        return " ".join(field.text for field in (self.minute, self.hour, self.day, self.month, self.weekday))

    def matches(self, wall: datetime) -> bool:
        """Whether the wall clock shows a time of the job."""
        if not (self.minute.matches(wall.minute) and self.hour.matches(wall.hour)):
            return False
        return self.matches_date(wall.date())

    def matches_date(self, day: date) -> bool:
        if not self.month.matches(day.month):
            return False
        days = self.day.matches(day), self.weekday.matches(day)
        return all(days) if self.day.is_wild or self.weekday.is_wild else any(days)


def oracle(drawn: Drawn, timezone: str, since: datetime, until: datetime) -> list[datetime]:
    """The firings in [since, until), found by looking at the wall clock at every instant that could be a whole minute.

    `since` must not lie in or just behind a change of the clock.
    """
    here = zoneinfo.ZoneInfo(timezone)
    step = timedelta(seconds=30) if timezone == "Africa/Monrovia" else MINUTE  # it was 44 min 30 s behind
    on_elapsed_time = drawn.minute.is_wild or drawn.hour.is_wild
    dates: dict[date, bool] = {}
    firings = []
    instant = since
    # The last whole minute that the clock showed before.
    shown = (since.astimezone(here).replace(tzinfo=None) - timedelta(seconds=1)).replace(second=0)
    while instant < until:
        wall = instant.astimezone(here).replace(tzinfo=None)
        if wall.second == 0:
            if on_elapsed_time:
                passed = [wall]
            else:
                # Each minute that the clock has come to or has jumped over, and never the same twice.
                passed = [shown + number * MINUTE for number in range(1, (wall - shown) // MINUTE + 1)]
                shown = max(shown, wall)
            for minute in passed:
                day = minute.date()
                if day not in dates:
                    dates[day] = drawn.matches_date(day)
                if dates[day] and drawn.hour.matches(minute.hour) and drawn.minute.matches(minute.minute):
                    firings.append(instant)
                    break
        instant += step
    return firings


# -- where clocks change -------------------------------------------------------------------------------------


@cache
def changes(timezone: str) -> tuple[datetime, ...]:
    """The instants at which the zone's offset from UTC changes, FIRST_YEAR to LAST_YEAR."""
    here = zoneinfo.ZoneInfo(timezone)

    def offset(instant: datetime) -> timedelta | None:
        return instant.astimezone(here).utcoffset()

    found = []
    instant, end = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)
    while instant < end:
        if offset(instant) != offset(instant + DAY):
            # The first second of the day that has another offset than its beginning.
            low, high = 0, 86400
            while high - low > 1:
                middle = (low + high) // 2
                if offset(instant + timedelta(seconds=middle)) == offset(instant):
                    low = middle
                else:
                    high = middle
            found.append(instant + timedelta(seconds=high))
        instant += DAY
    return tuple(found)


def stored_changes(timezone: str) -> list[int]:
    """Every change that the zone's file (TZif, RFC 8536) holds, in seconds since 1970."""
    content = b""
    for folder in zoneinfo.TZPATH:
        if (path := Path(folder, timezone)).is_file():
            content = path.read_bytes()
            break
    else:
        content = resources.files("tzdata").joinpath("zoneinfo", *timezone.split("/")).read_bytes()

    def counts(header: bytes) -> tuple[int, ...]:
        assert header[:4] == b"TZif"
        return struct.unpack(">6l", header[20:44])

    isut, isstd, leap, times, types, chars = counts(content)
    second = content[44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut :]
    times = counts(second)[3]
    return list(struct.unpack(f">{times}q", second[44 : 44 + times * 8]))


# -- what is drawn -------------------------------------------------------------------------------------------


def numbers(low: int, high: int, near: list[int]) -> st.SearchStrategy[int]:
    return st.sampled_from(near) | st.integers(low, high)


@st.composite
def plain_fields(draw: st.DrawFn, low: int, high: int, near: list[int]) -> Field:
    """A minute or an hour: single, a list, a range, with steps, with or without a wildcard."""
    kind = draw(st.sampled_from(["single", "list", "range", "stepped range", "from", "*", "*/"]))
    if kind == "*":
        return Field("*", lambda value: True)
    if kind == "*/":
        step = draw(st.integers(1, high))
        return Field(f"*/{step}", lambda value: (value - low) % step == 0)
    if kind == "list":
        chosen = draw(st.lists(numbers(low, high, near), min_size=2, max_size=4))
        return Field(",".join(map(str, chosen)), lambda value: value in chosen)
    first = draw(numbers(low, high, near))
    if kind == "single":
        return Field(str(first), lambda value: value == first)
    if kind == "from":
        step = draw(st.integers(1, high))
        return Field(f"{first}/{step}", lambda value: value >= first and (value - first) % step == 0)
    last = draw(st.integers(first, high))
    if kind == "range" or first == last:
        return Field(f"{first}-{last}", lambda value: first <= value <= last)
    step = draw(st.integers(1, high))
    return Field(f"{first}-{last}/{step}", lambda value: first <= value <= last and (value - first) % step == 0)


ANY = Field("*", lambda day: True)


def last_day(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def last_weekday(day: date) -> int:
    return max(
        number
        for number in range(1, last_day(day) + 1)
        if calendar.weekday(day.year, day.month, number) < calendar.SATURDAY
    )


@st.composite
def days(draw: st.DrawFn, near: list[int]) -> Field:
    kind = draw(st.sampled_from(["*", "*", "*", "single", "list", "range", "*/", "L", "LW"]))
    if kind == "*":
        return ANY
    if kind == "L":
        return Field("L", lambda day: day.day == last_day(day))
    if kind == "LW":
        return Field("LW", lambda day: day.day == last_weekday(day))
    if kind == "*/":
        step = draw(st.integers(1, 31))
        return Field(f"*/{step}", lambda day: (day.day - 1) % step == 0)
    if kind == "list":
        chosen = draw(st.lists(numbers(1, 31, near), min_size=2, max_size=3))
        return Field(",".join(map(str, chosen)), lambda day: day.day in chosen)
    first = draw(numbers(1, 28, near))
    if kind == "single":
        return Field(str(first), lambda day: day.day == first)
    last = draw(st.integers(first, 31))
    return Field(f"{first}-{last}", lambda day: first <= day.day <= last)


def weekday(day: date) -> int:
    """0 is Sunday."""
    return (day.weekday() + 1) % 7


@st.composite
def weekdays(draw: st.DrawFn, near: list[int]) -> Field:
    kind = draw(st.sampled_from(["*", "*", "*", "single", "name", "range", "*/", "last", "nth"]))
    if kind == "*":
        return ANY
    if kind == "*/":
        step = draw(st.integers(1, 6))
        # 0 to 7, of which both ends are Sunday.
        chosen = {number % 7 for number in range(0, 8, step)}
        return Field(f"*/{step}", lambda day: weekday(day) in chosen)
    first = draw(numbers(0, 6, near))
    if kind == "single":
        text = draw(st.sampled_from(["0", "7"])) if first == 0 else str(first)
        return Field(text, lambda day: weekday(day) == first)
    if kind == "name":
        text = DAY_NAMES[first]
        return Field(draw(st.sampled_from([text, text.lower()])), lambda day: weekday(day) == first)
    if kind == "last":
        return Field(f"{first}L", lambda day: weekday(day) == first and day.day + 7 > last_day(day))
    if kind == "nth":
        nth = draw(st.integers(1, 5))
        return Field(f"{DAY_NAMES[first]}#{nth}", lambda day: weekday(day) == first and (day.day + 6) // 7 == nth)
    last = draw(st.integers(first, 6))
    return Field(f"{first}-{last}", lambda day: first <= weekday(day) <= last)


@st.composite
def months(draw: st.DrawFn, near: int) -> Field:
    kind = draw(st.sampled_from(["*", "*", "*", "single", "name", "two", "*/"]))
    if kind == "*":
        return ANY
    if kind == "*/":
        step = draw(st.integers(1, 6))
        return Field(f"*/{step}", lambda month: (month - 1) % step == 0)
    if kind == "name":
        return Field(MONTH_NAMES[near - 1], lambda month: month == near)
    if kind == "two":
        other = draw(st.integers(1, 12))
        return Field(f"{near},{other}", lambda month: month in (near, other))
    return Field(str(near), lambda month: month == near)


@st.composite
def crons(draw: st.DrawFn, around: list[datetime]) -> Drawn:
    """An expression whose numbers are, for the greater part, those that a clock shows near a change."""
    hours = sorted({wall.hour for wall in around})
    minutes = sorted({wall.minute for wall in around} | {0, 1, 30, 59})
    return Drawn(
        minute=draw(plain_fields(0, 59, minutes)),
        hour=draw(plain_fields(0, 23, hours)),
        day=draw(days(sorted({wall.day for wall in around if wall.day < 29} or {28}))),
        month=draw(months(around[0].month)),
        weekday=draw(weekdays(sorted({weekday(wall.date()) for wall in around}))),
    )


@dataclass(frozen=True)
class Case:
    """A cron, in a zone, around a change of its clock."""

    timezone: str
    change: datetime
    cron: Drawn
    starts: tuple[timedelta, ...]
    """Where else to ask from, as distances from the change."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    timezone = draw(st.sampled_from(ZONES))
    of_zone = [change for change in changes(timezone) if change > datetime(FIRST_YEAR, 1, 4, tzinfo=UTC)]
    change = draw(st.sampled_from(of_zone)) if of_zone else datetime(2026, 3, 29, 1, tzinfo=UTC)
    here = zoneinfo.ZoneInfo(timezone)
    before = (change - timedelta(seconds=1)).astimezone(here).replace(tzinfo=None)
    after = change.astimezone(here).replace(tzinfo=None)
    between = before + (after - before) / 2
    around = [before, between, after, before - timedelta(minutes=30), after + timedelta(minutes=30)]
    starts = draw(
        st.lists(
            st.timedeltas(-timedelta(hours=26), timedelta(hours=26)) | st.timedeltas(-timedelta(hours=2), 3 * MINUTE),
            max_size=4,
        )
    )
    return Case(timezone, change, draw(crons(around)), tuple(starts))


def field(text: str, *values: int) -> Field:
    """A minute or an hour with these values."""
    return Field(text, lambda value: value in values)


def fixed(timezone: str, change: str, minute: Field, hour: Field) -> Case:
    return Case(timezone, datetime.fromisoformat(change), Drawn(minute, hour, ANY, ANY, ANY), ())


# -- what must hold ------------------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases())
@example(fixed("America/New_York", "2026-03-08T07:00:00Z", field("0,30", 0, 30), field("2", 2)))
@example(fixed("America/New_York", "2026-11-01T06:00:00Z", field("30", 30), field("1", 1)))
@example(fixed("Australia/Lord_Howe", "2026-04-04T15:00:00Z", Field("*/10", lambda m: m % 10 == 0), field("2", 2)))
@example(fixed("Africa/Monrovia", "1972-01-07T00:44:30Z", field("0", 0), field("0", 0)))
@example(fixed("Africa/Monrovia", "1972-01-07T00:44:30Z", field("15", 15), field("0", 0)))
@example(fixed("Africa/Monrovia", "1972-01-07T00:44:30Z", field("15,45", 15, 45), field("0", 0)))
@example(fixed("Pacific/Apia", "2011-12-30T10:00:00Z", field("0", 0), field("9", 9)))
@example(fixed("America/St_Johns", "2010-11-07T02:31:00Z", field("0,1,31", 0, 1, 31), field("0,23", 0, 23)))
@example(fixed("Antarctica/Vostok", "1994-01-31T17:00:00Z", field("5", 5), field("18", 18)))
def test_firings_are_what_the_rules_say_from_wherever_one_asks(case: Case) -> None:
    since, until = case.change.replace(second=0) - AROUND, case.change + AROUND
    try:
        cron = parse_cron(case.cron.text, case.timezone)
    except ValueError as error:
        assert "never fires" in str(error)
        every_date = (date(2000, 1, 1) + number * DAY for number in range(366 * 28))
        assert not any(case.cron.matches_date(day) for day in every_date), case.cron.text
        return
    expected = oracle(case.cron, case.timezone, since, until)
    before = since - timedelta(microseconds=1)
    found = [firing for firing in cron.firings(before, until) if firing < until]
    # None missing, none too many; in order, and none twice.
    assert found == expected, case.cron.text
    assert all(one < other for one, other in pairwise(found))
    assert all(firing.tzinfo is UTC and firing.microsecond == 0 for firing in found)
    # The same from any start: from each firing, from just before and just after it, and from the change itself.
    microsecond = timedelta(microseconds=1)
    firsts = found[:20] + [each for each in found[20:] if abs(each - case.change) < timedelta(hours=2)][:80]
    starts = [start for each in firsts for start in (each - microsecond, each, each + microsecond)]
    starts += [case.change - microsecond, case.change, case.change + microsecond]
    starts += [case.change + distance for distance in case.starts]
    for start in starts:
        later = next((firing for firing in expected if firing > start), None)
        following = cron.next_after(start)
        if later is None:
            assert following is None or following >= until
        else:
            assert following == later, (case.cron.text, start)
            assert cron.is_due_between(start, later)
            assert not cron.is_due_between(start, later - microsecond)
    # Counted, and the newest found, without walking through them.
    for start in starts[-3 - len(case.starts) :]:
        rest = [firing for firing in found if start < firing]
        end = max(start, until - microsecond)
        assert cron.count(start, end) == len(rest), (case.cron.text, start)
        assert cron.newest(start, end) == (rest[-1] if rest else None)


@settings(max_examples=max(EXAMPLES // 5, 20))
@given(st.sampled_from(ZONES), st.integers(FIRST_YEAR, LAST_YEAR - 2), st.integers(0, 23), st.integers(0, 59))
def test_a_daily_job_runs_once_for_each_date_that_the_calendar_has(
    timezone: str, year: int, hour: int, minute: int
) -> None:
    """Two years, at a fixed time: at that time on the wall clock, or where it is left out, when the clock goes on."""
    here = zoneinfo.ZoneInfo(timezone)
    since = datetime(year, 1, 1, 12, tzinfo=UTC)
    cron = parse_cron(f"{minute} {hour} * * *", timezone)
    firings = list(cron.firings(since, since + 730 * DAY))
    walls = [firing.astimezone(here).replace(tzinfo=None) for firing in firings]
    local = {wall.date() for wall in walls}
    whole_days = {(since + number * DAY).astimezone(here).date() for number in range(1, 730)}
    assert whole_days <= local
    # At another time of day only where a change of the clock has just passed it.
    for firing, wall in zip(firings, walls, strict=True):
        if (wall.hour, wall.minute) != (hour, minute):
            assert any(timedelta(0) <= firing - change < MINUTE for change in changes(timezone)), firing
    # A date has two only where the day before it was left out.
    for (one, other), (wall, later) in zip(pairwise(firings), pairwise(walls), strict=True):
        assert one < other
        if wall.date() == later.date():
            assert any(timedelta(0) <= one - change < MINUTE for change in changes(timezone))


def test_no_zone_changes_twice_between_two_looks_at_it() -> None:
    """What the walk leans on: `_PROBE` finds every change, and no clock shows more than a day twice."""

    def gaps(timezone: str) -> Iterator[float]:
        here = zoneinfo.ZoneInfo(timezone)
        since = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
        real = []
        for second in stored_changes(timezone):
            if second >= since:
                after = datetime.fromtimestamp(second, UTC).astimezone(here).utcoffset()
                before = datetime.fromtimestamp(second - 1, UTC).astimezone(here).utcoffset()
                assert before is not None and after is not None
                assert before - after <= DAY < cron_rules._LONGEST_OVERLAP
                if after != before:
                    real.append(second)
        yield from (later - earlier for earlier, later in pairwise(real))

    shortest = min(gap for timezone in ZONES for gap in gaps(timezone))
    assert shortest > 4 * cron_rules._PROBE.total_seconds()


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "Africa/Casablanca", "America/Danmarkshavn", "Asia/Tehran"])
def test_the_walk_finds_each_change_to_the_second(timezone: str) -> None:
    found = [
        begin
        for year in range(FIRST_YEAR, LAST_YEAR + 1)
        for begin, _, _ in cron_rules._stretches_of_year(timezone, year)
        if (begin.month, begin.day, begin.hour) != (1, 1, 0)
    ]
    assert found == list(changes(timezone))
