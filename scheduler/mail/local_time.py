"""Instants in words, on a person's wall clock, in English whatever the machine's locale is.

Every time that goes into an e-mail is absolute and bears the zone's name (semantics, section 1).
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def local_text(instant: datetime, zone: str) -> str:
    """ "Fri 20 Nov 2026, 09:00 (Europe/Berlin)": the aware `instant` on the wall clock of the IANA zone
    `zone`.

    A zone that this machine doesn't know (any more) is written in UTC, and says so: a mail must not fail for
    it.
    """
    local, name = _local(instant, zone)
    return f"{_date(local)}, {local.hour:02}:{local.minute:02} ({name})"


def local_date_text(instant: datetime, zone: str) -> str:
    """ "Fri 20 Nov 2026 (Europe/Berlin)": the local date on which the aware `instant` falls, for all-day
    tasks.
    """
    local, name = _local(instant, zone)
    return f"{_date(local)} ({name})"


def late_text(instant: datetime, zone: str) -> str:
    """ "09:00, Fri 20 Nov 2026": when a late reminder was meant for; `reminder(late_for=…)` takes it."""
    local, name = _local(instant, zone)
    suffix = "" if name == zone else f" ({name})"
    return f"{local.hour:02}:{local.minute:02}, {_date(local)}{suffix}"


def _date(local: datetime) -> str:
    return f"{_DAYS[local.weekday()]} {local.day} {_MONTHS[local.month - 1]} {local.year}"


def _local(instant: datetime, zone: str) -> tuple[datetime, str]:
    if instant.tzinfo is None:
        raise ValueError("An instant must carry its offset from UTC.")
    information, name = _zone(zone)
    return instant.astimezone(information), name


@lru_cache(maxsize=1024)  # there are about 600 zones; ZoneInfo's own cache is slower, and keeps 8
def _zone(name: str) -> tuple[tzinfo, str]:
    try:
        return ZoneInfo(name), name
    except (KeyError, ValueError, OSError):  # unknown; a path that leads elsewhere; a folder ("Europe")
        return UTC, "UTC"
