"""What a change of its task means for a reminder: a pure rule over values (semantics, 3.2 and 3.3)."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from scheduler.reminders.times import fire_time

TASK_COMPLETED = "task_completed"
TASK_DELETED = "task_deleted"
NO_DUE_DATE = "no_due_date"
PAST_WHEN_SET = "past_when_set"
BEFORE_FIRING = frozenset({TASK_COMPLETED, TASK_DELETED, NO_DUE_DATE, PAST_WHEN_SET})
"""Reasons given before the fire time; any other is given when it fires, and stands in a delivery row."""


class TaskTimes(NamedTuple):
    """What of a task its reminders depend on."""

    due_at: datetime | None
    all_day: bool
    timezone: str
    is_completed: bool
    is_deleted: bool

    @property
    def closed_reason(self) -> str | None:
        """Why its reminders are off, or None while it is open."""
        if self.is_deleted:
            return TASK_DELETED
        return TASK_COMPLETED if self.is_completed else None


class Stand(NamedTuple):
    """Where a reminder stands."""

    state: str
    reason: str | None
    fire_at: datetime


def first_stand(*, offset_minutes: int | None, remind_at: datetime | None, task: TaskTimes, now: datetime) -> Stand:
    """Where a new reminder begins; exactly one of `offset_minutes` and `remind_at` is given, the former with
    a due time."""
    if offset_minutes is None:
        assert remind_at is not None
        fire_at = remind_at
    else:
        assert task.due_at is not None
        fire_at = fire_time(offset_minutes, due_at=task.due_at, all_day=task.all_day, timezone=task.timezone)
    if task.closed_reason:
        return Stand("skipped", task.closed_reason, fire_at)
    if fire_at <= now:
        return Stand("skipped", PAST_WHEN_SET, fire_at)
    return Stand("pending", None, fire_at)


def stand_after_change(present: Stand, *, offset_minutes: int | None, task: TaskTimes, now: datetime) -> Stand:
    """Where a reminder stands once its task is as `task` says; equal to `present` when nothing changes for
    it."""
    fire_at = present.fire_at
    if offset_minutes is not None and task.due_at is not None:
        fire_at = fire_time(offset_minutes, due_at=task.due_at, all_day=task.all_day, timezone=task.timezone)
    moved_ahead = fire_at != present.fire_at and fire_at > now
    homeless = offset_minutes is not None and task.due_at is None
    if present.state in ("pending", "claimed"):
        if task.closed_reason:
            return Stand("skipped", task.closed_reason, fire_at)
        if homeless:
            return Stand("skipped", NO_DUE_DATE, fire_at)
        if fire_at == present.fire_at:
            return present  # also when it is past: it is due, and about to be claimed
        return Stand("pending", None, fire_at) if fire_at > now else Stand("skipped", PAST_WHEN_SET, fire_at)
    if task.closed_reason or homeless:
        if present.state == "skipped" and present.reason in BEFORE_FIRING:
            return Stand("skipped", task.closed_reason or NO_DUE_DATE, fire_at)
        return present
    if present.state == "skipped" and fire_at > now:
        return Stand("pending", None, fire_at)
    # What was sent stays sent, unless its due time moves so that it lies ahead again: a new time is a new
    # firing.
    return Stand("pending", None, fire_at) if moved_ahead else present
