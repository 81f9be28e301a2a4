"""When a reminder fires: pure rules over the task's due time and the reminder's own."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from scheduler.clock import zone

ALL_DAY_HOUR = time(9)
"""An all-day task's offsets count from 09:00 on its date, on the task's wall clock (semantics, 1.3)."""
LATE_AFTER = timedelta(seconds=60)
"""A reminder that goes out later than this says for when it was meant (semantics, 3.5)."""
LATE_ONES_BY_THEMSELVES = 5
"""Up to so many late reminders of a person are e-mails of their own; more become one."""


def fire_time(offset_minutes: int, *, due_at: datetime, all_day: bool, timezone: str) -> datetime:
    """When a reminder set `offset_minutes` before the due time fires (UTC).

    `due_at` is aware; of an all-day task it is the start of the local date in `timezone`.
    """
    anchor = due_at
    if all_day:
        local_date = due_at.astimezone(zone(timezone)).date()
        # 09:00 exists, and once, on every date of every zone: transitions happen at night.
        anchor = datetime.combine(local_date, ALL_DAY_HOUR, tzinfo=zone(timezone))
    # An offset is elapsed time: on UTC, so that a clock change between the two does not stretch it.
    return anchor.astimezone(UTC) - timedelta(minutes=offset_minutes)


def is_late(fire_at: datetime, now: datetime) -> bool:
    """Whether a reminder meant for `fire_at` counts as late at `now`."""
    return now - fire_at > LATE_AFTER
