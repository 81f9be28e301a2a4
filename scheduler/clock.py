"""Instants: aware datetimes in UTC inside, RFC 3339 outside. Services take `now` as an argument; only the
doors ask the clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Exclusive. The contract takes the years 1970 to 2199."""

_RFC_3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)


def now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)


def format_instant(instant: datetime) -> str:
    """`2026-11-20T07:22:00Z`, with a fraction only when it is not zero."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 date-time with its offset, as UTC with microseconds (further digits are cut off).

    Raises ValueError, with words for the person who sent it, for anything else and for years outside 1970 to
    2199.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError("must be a date-time with an offset, like 2026-11-20T09:00:00Z")
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    leap_second = second == "60"  # RFC 3339, 5.7: ends a month; counted as the second before, as POSIX clocks do
    offset = timedelta(0)
    if sign:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            raise ValueError("has an offset that does not exist")
        offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes)) * (1 if sign == "+" else -1)
    try:
        local = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            59 if leap_second else int(second),
            int((fraction or "0")[:6].ljust(6, "0")),
            tzinfo=UTC,
        )
        instant = local - offset
    except (ValueError, OverflowError):
        raise ValueError("is not a date-time that exists") from None
    if leap_second and (instant + timedelta(seconds=1)).strftime("%d %H:%M:%S") != "01 00:00:00":
        raise ValueError("is not a date-time that exists: leap seconds end a month, in UTC")
    if not EARLIEST <= instant < LATEST:
        raise ValueError("must lie between the years 1970 and 2199")
    return instant


@lru_cache(maxsize=1)
def time_zones() -> frozenset[str]:
    """Every IANA zone name that this machine or the tzdata package knows (not "localtime" and the like)."""
    return frozenset(
        name for name in available_timezones() if name != "localtime" and not name.startswith(("posix", "right"))
    )


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The IANA zone of that name. Raises ValueError when there is none."""
    if name not in time_zones():
        raise ValueError("must be an IANA time zone, like Europe/Berlin")
    return ZoneInfo(name)
