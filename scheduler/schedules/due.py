"""What becomes of firings whose time has come: the policy `missed`, as pure rules (semantics, 4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.schedules.cron import Cron

ON_TIME = timedelta(seconds=60)
"""A firing that is late by no more was not missed."""
ONCE = "once"
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Firing:
    """A firing that gets a row."""

    scheduled_for: datetime
    missed: int = 0
    """How many firings this row stands for that were missed and have no row of their own; where it is left out, its own
    is counted too."""
    is_left_out: bool = False
    """It was missed, and is not made up for: its run is `skipped`."""


def plan_firings(cron: Cron, *, missed: str, next_run_at: datetime, now: datetime) -> list[Firing]:
    """The firings in [next_run_at, now] that get a row, in order.

    Where none is late by more than a minute, each does. Otherwise nothing ran for a while, and with the policy `once`
    the newest firing stands for all of them; with `none` those that are late are left out, the newest of them saying
    how many, and the others run.
    """
    before, late_until = next_run_at - _INSTANT, now - ON_TIME - _INSTANT
    newest_late = cron.newest(before, late_until) if late_until > before else None
    on_time = list(cron.firings(max(before, late_until), now))
    if newest_late is None:
        return [Firing(each) for each in on_time]
    late = cron.count(before, late_until)
    if missed == ONCE:
        newest = on_time[-1] if on_time else newest_late
        return [Firing(newest, missed=late + len(on_time) - 1)]
    return [Firing(newest_late, missed=late, is_left_out=True), *(Firing(each) for each in on_time)]
