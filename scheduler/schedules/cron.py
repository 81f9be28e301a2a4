"""Cron expressions on a zone's wall clock: read by CronSim, with Debian cron's rules where the clock changes.

The rule (semantics, 4), after cron(8) of Debian:

- A job with a wildcard (a field that begins with `*`) as its minute or hour runs **on elapsed time**: at each instant
  at which the wall clock shows a time that matches. What the clock skips it does not run, what the clock shows twice it
  runs twice. `0 * * * *` is such a job, and so is `0 */2 * * *`.
- Every other job has **fixed times**. It runs when the wall clock first reaches its time or passes it: a time in a gap
  runs at the gap's end, one that the clock shows twice runs at the first. Two times in one gap are one firing.

Where the two sources are at odds, or say nothing:

- Debian takes a change of three hours or more for a correction of the machine's clock, since it can't know better. Here
  the change stands in the zone's own data, so there is nothing to guess, and the rule is the same for every length:
  where a zone left out a day (Apia, 2011-12-30), a job with fixed times on that day runs once, when the next begins.
- Firings are whole minutes of the wall clock; where a gap ends within a minute (Monrovia, 1972), the next one counts.
- Six fields (the service's own jobs; the first is the second) follow the same rule, a wildcard as the second included.
- CronSim only reads the fields here. It walks the calendar too, but with whole hours, which lose firings where a zone
  changes by half an hour, and gives two times of one gap as two firings, or out of order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from scheduler.clock import EARLIEST, LATEST, zone

LONGEST_EXPRESSION = 200
_FIELDS = (
    # As CronSim names them; as people do, with what each takes.
    ("second", "second", "0 to 59"),
    ("minute", "minute", "0 to 59"),
    ("hour", "hour", "0 to 23"),
    ("day-of-month", "day of the month", "1 to 31, L (the last day) or LW (the last weekday)"),
    ("month", "month", "1 to 12 or JAN to DEC"),
    ("day-of-week", "day of the week", "0 to 7 or SUN to SAT, 5L (the last Friday) or FRI#2 (the second)"),
)
_SECOND, _MINUTE, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
_INSTANT = timedelta(microseconds=1)
_ANY_DAY = datetime(2001, 1, 1, tzinfo=UTC)
_PROBE = timedelta(hours=12)
"""How far apart a zone's offset is looked at. No zone ever changed twice within so short a time."""
_LONGEST_OVERLAP = timedelta(days=2)
"""Longer than any time that a zone's clock has shown twice, a day; so that one that began last year counts."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a zone; `parse_cron` makes it. Its firings lie in the years 1970 to 2199.

    Which firings there are does not depend on where one begins to ask.
    """

    expression: str
    timezone: str
    _fields: CronSim = field(repr=False, compare=False)
    _days: dict[tuple[int, int, int], tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    """Matching days, by month, its length and the weekday that it begins with: all that the days' fields look at."""

    def next_after(self, instant: datetime) -> datetime | None:
        """The first firing after `instant` (aware), in UTC without microseconds; None when there is none any more."""
        return next(self._after(instant), None)

    def firings(self, after: datetime, until: datetime, limit: int | None = None) -> Iterator[datetime]:
        """The firings in (after, until], in order, `limit` of them at the most."""
        for firing in islice(self._after(after), limit):
            if firing > until:
                return
            yield firing

    def is_due_between(self, after: datetime, until: datetime) -> bool:
        """Whether there is a firing in (after, until]."""
        firing = self.next_after(after)
        return firing is not None and firing <= until

    def newest(self, after: datetime, until: datetime) -> datetime | None:
        """The last firing in (after, until]."""
        span = timedelta(hours=1)
        while True:
            begin = max(after, until - span)
            if found := list(self.firings(begin, until)):
                return found[-1]
            if begin == after:
                return None
            span *= 24

    def count(self, after: datetime, until: datetime) -> int:
        """How many firings lie in (after, until].

        Where the clock just runs they are not looked at one by one: after a week's downtime there may be thousands of
        schedules, each with ten thousand firings that were missed.
        """
        count, position = 0, max(after, EARLIEST - _SECOND).astimezone(UTC)
        shown = _wall(position, -2 * _LONGEST_OVERLAP)
        for begin, end, offset in _stretches(self.timezone, position - _LONGEST_OVERLAP):
            if begin > until:
                break
            # Behind what a gap or an overlap at its beginning does to the times there.
            calm_wall = max(_wall(begin, offset) + _MINUTE, shown)
            shown = max(shown, _wall(end, offset))
            calm, stop = max((calm_wall - offset).replace(tzinfo=UTC), position), min(end - _INSTANT, until)
            if calm < stop:
                count += sum(1 for _ in self.firings(position, calm))
                count += self._count_walls(_wall(calm, offset) + _INSTANT, _wall(stop, offset) + _INSTANT)
                position = stop
        return count + sum(1 for _ in self.firings(position, until))

    @property
    def runs_on_elapsed_time(self) -> bool:
        """Whether it is a job with a wildcard, rather than one with fixed times (see the module)."""
        return any(part.startswith("*") for part in self._fields.parts[:3])

    def _after(self, after: datetime) -> Iterator[datetime]:
        """Every firing after `after`, in order.

        Goes along the stretches of time between two changes of the zone's clock, and in each along the wall clock:

        1. With fixed times, `shown` is the latest time that the clock has shown. Times up to it have had their turn
           (an overlap); times between it and what the clock shows now have been passed (a gap), and it is theirs now.
        2. On elapsed time, only what the clock shows within the stretch counts.
        3. What comes out must be later than what came before: two times of one gap are one firing.
        """
        on_elapsed_time = self.runs_on_elapsed_time
        # A minute before, as a firing may come that much after the change of the clock that caused it.
        last = max(after, EARLIEST - _SECOND).astimezone(UTC)
        start = last - _MINUTE
        shown = _wall(start, -2 * _LONGEST_OVERLAP)
        for begin, end, offset in _stretches(self.timezone, start - _LONGEST_OVERLAP):
            earliest, until = _wall(begin, offset), _wall(end, offset)
            if end > start:
                first = _wall(max(begin, start), offset)
                if not on_elapsed_time:
                    first = max(shown, first) if begin < start else shown
                for wall in self._walls(first, until):
                    wall_or_end_of_gap = wall if wall >= earliest else _whole_minute(earliest)
                    firing = (wall_or_end_of_gap - offset).replace(tzinfo=UTC)
                    if firing > last:
                        last = firing
                        yield firing
            shown = max(shown, until)

    def _walls(self, first: datetime, until: datetime) -> Iterator[datetime]:
        """The matching times of a wall clock in [first, until), naive."""
        fields = self._fields
        hours, minutes, seconds = sorted(fields.hours), sorted(fields.minutes), sorted(fields.seconds)
        for day in self._dates(first.date(), until.date()):
            is_first = day == first.date()
            for hour in hours:
                if is_first and hour < first.hour:
                    continue
                for minute in minutes:
                    if is_first and (hour, minute) < (first.hour, first.minute):
                        continue
                    for second in seconds:
                        wall = datetime.combine(day, time(hour, minute, second))
                        if wall >= until:
                            return
                        if wall >= first:
                            yield wall

    def _count_walls(self, first: datetime, until: datetime) -> int:
        """How many `_walls` there are."""
        begin, end = first.date(), until.date()
        whole_days = sum(1 for _ in self._dates(begin, end - _DAY))
        count = whole_days * len(self._fields.hours) * len(self._fields.minutes) * len(self._fields.seconds)
        for day, sign, wall in ((begin, -1, first), (end, 1, until)):
            if any(self._dates(day, day)):
                count += sign * self._count_times_before(wall)
        return count

    def _count_times_before(self, wall: datetime) -> int:
        """How many matching times its day has before it."""
        hours, minutes, seconds = self._fields.hours, self._fields.minutes, self._fields.seconds
        count = sum(hour < wall.hour for hour in hours) * len(minutes) * len(seconds)
        if wall.hour in hours:
            count += sum(minute < wall.minute for minute in minutes) * len(seconds)
            if wall.minute in minutes:
                count += sum(second < wall.second + (wall.microsecond > 0) for second in seconds)
        return count

    def _dates(self, first: date, last: date) -> Iterator[date]:
        """The matching dates from `first` to `last`."""
        begin = first.replace(day=1)
        while begin <= last:
            following = (begin + 31 * _DAY).replace(day=1)
            if begin.month in self._fields.months:
                for day in self._days_of_month(begin, (following - begin).days):
                    if first <= (found := begin.replace(day=day)) <= last:
                        yield found
            begin = following

    def _days_of_month(self, begin: date, length: int) -> tuple[int, ...]:
        key = (begin.month, length, begin.weekday())
        days = self._days.get(key)
        if days is None:
            of_month = (begin + number * _DAY for number in range(length))
            days = self._days[key] = tuple(day.day for day in of_month if self._fields.match_day(day))
        return days

    def _has_dates(self) -> bool:
        # In 28 years of which none is left out (as 2100 is), each month begins with each weekday at each length.
        return next(self._dates(date(2001, 1, 1), date(2028, 12, 31)), None) is not None


def parse_cron(expression: str, timezone: str, *, seconds: bool = False) -> Cron:
    """Read five fields (minute, hour, day of the month, month, day of the week); with `seconds` also six.

    Raises ValueError, with words for the person who wrote it, for what can't be read, for a rule that never fires, and
    for an unknown zone.
    """
    zone(timezone)
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(f"is longer than {LONGEST_EXPRESSION} characters")
    if not (expression.isascii() and expression.isprintable()):
        raise ValueError("holds characters that no cron expression has")
    return _read(" ".join(expression.split()), timezone, seconds)


@lru_cache(maxsize=4096)
def _read(expression: str, timezone: str, seconds: bool) -> Cron:
    parts = expression.split(" ") if expression else []
    if expression.startswith("@"):
        raise ValueError("must be five fields, like 0 9 * * MON-FRI; names like @daily are not taken")
    if len(parts) != 5 and not (seconds and len(parts) == 6):
        names = ", ".join(name for _, name, _ in _FIELDS[1:])
        six = "; or six, with the second first" if seconds else ""
        raise ValueError(f"must have five fields ({names}){six}, and has {len(parts)}")
    try:
        cron = Cron(expression, timezone, CronSim(expression, _ANY_DAY))
    except (CronSimError, ValueError, AssertionError):
        raise ValueError(_complaint(parts)) from None
    if not cron._has_dates():
        raise ValueError(_NEVER)
    return cron


_NEVER = "never fires: no date has that day and month"


def _complaint(parts: list[str]) -> str:
    """What is wrong with fields that CronSim does not read: the first that it can't read by itself."""
    own = _FIELDS[-len(parts) :]
    for position, (part, (_, name, takes)) in enumerate(zip(parts, own, strict=True)):
        others = ["*"] * len(parts)
        others[position] = part
        try:
            CronSim(" ".join(others), _ANY_DAY)
        except (CronSimError, ValueError, AssertionError):
            return f"can't be read: the {name} ({part}) takes {takes}, with * , - and / as in cron"
    return _NEVER


def _wall(instant: datetime, offset: timedelta) -> datetime:
    """What a clock at that offset from UTC shows, naive."""
    return instant.replace(tzinfo=None) + offset


def _whole_minute(wall: datetime) -> datetime:
    down = wall.replace(second=0, microsecond=0)
    return down if down == wall else down + _MINUTE


def _stretches(timezone: str, start: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """(begin, end, offset from UTC) of each time in which a zone's clock just runs, in order, from the year of `start`
    on. A year's end parts two of them as well."""
    for year in range(start.year, LATEST.year):
        yield from _stretches_of_year(timezone, year)


@lru_cache(maxsize=8192)
def _stretches_of_year(timezone: str, year: int) -> tuple[tuple[datetime, datetime, timedelta], ...]:
    here = zone(timezone)
    begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    offset = _offset(here, begin)
    stretches = []
    probe = begin
    while probe < end:
        before, probe = probe, min(probe + _PROBE, end)
        if _offset(here, probe) != offset and (change := _first_with_another(here, before, probe)) < end:
            stretches.append((begin, change, offset))
            begin, offset = change, _offset(here, change)
    stretches.append((begin, end, offset))
    return tuple(stretches)


def _first_with_another(here: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second with another offset than at `before`; `after` has another."""
    offset = _offset(here, before)
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if _offset(here, middle) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(here: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(here).utcoffset()
    assert offset is not None
    return offset
