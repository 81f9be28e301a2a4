"""What a change of its task means for a reminder (semantics, 3.2, 3.3): a table, and what always holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.clock import time_zones
from scheduler.reminders.rules import BEFORE_FIRING, Stand, TaskTimes, first_stand, stand_after_change

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DUE = NOW + timedelta(hours=2)
AHEAD = NOW + timedelta(hours=1)  # an hour before DUE
PAST = NOW - timedelta(hours=1)
OPEN = TaskTimes(DUE, all_day=False, timezone="UTC", is_completed=False, is_deleted=False)

PENDING = Stand("pending", None, AHEAD)
DUE_ALREADY = Stand("pending", None, PAST)
CLAIMED = Stand("claimed", None, PAST)
SENDING = Stand("sending", None, PAST)
SENT = Stand("sent", None, PAST)
FAILED = Stand("failed", "refused", PAST)
COMPLETED = Stand("skipped", "task_completed", AHEAD)
COMPLETED_PAST = Stand("skipped", "task_completed", PAST)
DELETED = Stand("skipped", "task_deleted", AHEAD)
HOMELESS = Stand("skipped", "no_due_date", AHEAD)
TOO_LATE = Stand("skipped", "past_when_set", PAST)
UNWANTED = Stand("skipped", "preference_off", PAST)  # decided when it fired

done, binned, no_due = {"is_completed": True}, {"is_deleted": True}, {"due_at": None}
later = {"due_at": DUE + timedelta(days=1)}  # fires at AHEAD + 1 day
into_the_past = {"due_at": NOW}  # an hour before is past
LATER, BACK_THEN = AHEAD + timedelta(days=1), NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("present", "offset", "change", "expected"),
    [
        # Completing and deleting call off what is pending, also what is due or claimed and not yet written.
        (PENDING, 60, done, ("skipped", "task_completed", AHEAD)),
        (PENDING, None, done, ("skipped", "task_completed", AHEAD)),
        (PENDING, 60, binned, ("skipped", "task_deleted", AHEAD)),
        (PENDING, 60, done | binned, ("skipped", "task_deleted", AHEAD)),
        (DUE_ALREADY, None, done, ("skipped", "task_completed", PAST)),
        (CLAIMED, None, done, ("skipped", "task_completed", PAST)),
        (CLAIMED, None, binned, ("skipped", "task_deleted", PAST)),
        # … and leave alone what went out, is on its way, or was decided when it fired.
        (SENDING, None, done, SENDING),
        (SENT, None, done, SENT),
        (SENT, 60, binned, SENT),
        (FAILED, None, done, FAILED),
        (UNWANTED, None, done, UNWANTED),
        # Reopening and restoring bring back what is still ahead, and only that.
        (COMPLETED, 60, {}, ("pending", None, AHEAD)),
        (COMPLETED, None, {}, ("pending", None, AHEAD)),
        (DELETED, None, {}, ("pending", None, AHEAD)),
        (COMPLETED_PAST, None, {}, COMPLETED_PAST),
        (SENT, None, {}, SENT),
        (UNWANTED, None, {}, UNWANTED),
        # Restored, yet completed: off, for the reason that holds now.
        (DELETED, 60, done, ("skipped", "task_completed", AHEAD)),
        (COMPLETED, 60, binned, ("skipped", "task_deleted", AHEAD)),
        # The due time moves: relative ones go with it, absolute ones stay.
        (PENDING, 60, later, ("pending", None, LATER)),
        (PENDING, None, later, PENDING),
        (DUE_ALREADY, 60, later, ("pending", None, LATER)),
        (CLAIMED, 60, later, ("pending", None, LATER)),
        (CLAIMED, None, later, CLAIMED),
        (SENT, 60, later, ("pending", None, LATER)),
        (SENT, None, later, SENT),
        (SENDING, 60, later, ("pending", None, LATER)),
        (FAILED, 60, later, ("pending", None, LATER)),
        (UNWANTED, 60, later, ("pending", None, LATER)),
        (TOO_LATE, 60, later, ("pending", None, LATER)),
        (PENDING, 60, into_the_past, ("skipped", "past_when_set", BACK_THEN)),
        (PENDING, None, into_the_past, PENDING),
        (SENT, 60, {"due_at": NOW - timedelta(days=1)}, SENT),
        # Completed and moved at once: off, but with the time that it would have on reopening.
        (PENDING, 60, done | later, ("skipped", "task_completed", LATER)),
        (COMPLETED, 60, done | later, ("skipped", "task_completed", LATER)),
        (SENT, 60, done | later, SENT),
        (COMPLETED, 60, later, ("pending", None, LATER)),
        (COMPLETED_PAST, 60, later, ("pending", None, LATER)),
        # The due time goes: relative ones have nothing to count from.
        (PENDING, 60, no_due, ("skipped", "no_due_date", AHEAD)),
        (CLAIMED, 60, no_due, ("skipped", "no_due_date", PAST)),
        (PENDING, None, no_due, PENDING),
        (SENT, 60, no_due, SENT),
        (COMPLETED, 60, no_due, ("skipped", "no_due_date", AHEAD)),
        (COMPLETED, None, no_due, ("pending", None, AHEAD)),
        (HOMELESS, 60, {}, ("pending", None, AHEAD)),
        (HOMELESS, 60, done, ("skipped", "task_completed", AHEAD)),
        (HOMELESS, 60, into_the_past, None),  # below: not pending
        # Nothing changes: what is due stays due, and a claim is kept.
        (PENDING, 60, {}, PENDING),
        (DUE_ALREADY, None, {}, DUE_ALREADY),
        (CLAIMED, None, {}, CLAIMED),
    ],
)
def test_table(present: Stand, offset: int | None, change: dict[str, object], expected: Stand | None) -> None:
    task = OPEN._replace(**change)  # type: ignore[arg-type]
    stand = stand_after_change(present, offset_minutes=offset, task=task, now=NOW)
    if expected is None:
        assert stand.state == "skipped"
    else:
        assert stand == expected


@pytest.mark.parametrize(
    ("offset", "remind_at", "change", "expected"),
    [
        (60, None, {}, ("pending", None, AHEAD)),
        (0, None, {}, ("pending", None, DUE)),
        (120, None, {}, ("skipped", "past_when_set", NOW)),
        (60, None, into_the_past, ("skipped", "past_when_set", BACK_THEN)),
        (60, None, done, ("skipped", "task_completed", AHEAD)),
        (120, None, done, ("skipped", "task_completed", NOW)),
        (None, AHEAD, {}, ("pending", None, AHEAD)),
        (None, AHEAD, no_due, ("pending", None, AHEAD)),
        (None, AHEAD, done, ("skipped", "task_completed", AHEAD)),
        (
            0,
            None,
            {"due_at": datetime(2026, 3, 3, tzinfo=UTC), "all_day": True},
            ("pending", None, datetime(2026, 3, 3, 9, tzinfo=UTC)),
        ),
    ],
)
def test_where_a_new_one_begins(
    offset: int | None, remind_at: datetime | None, change: dict[str, object], expected: tuple[object, ...]
) -> None:
    task = OPEN._replace(**change)  # type: ignore[arg-type]
    assert first_stand(offset_minutes=offset, remind_at=remind_at, task=task, now=NOW) == expected


# -- what holds for all --------------------------------------------------------------------------------------

NEARBY = st.timedeltas(timedelta(days=-3), timedelta(days=3)).map(lambda delta: NOW + delta)
TASKS = st.builds(
    TaskTimes,
    due_at=st.none() | NEARBY,
    all_day=st.booleans(),
    timezone=st.sampled_from(sorted(time_zones())),
    is_completed=st.booleans(),
    is_deleted=st.booleans(),
)
OFFSETS = st.none() | st.integers(0, 3000)
OPEN_STATES = st.sampled_from(["pending", "claimed"])
ENDED = st.sampled_from(["sending", "sent", "failed"])
SKIPS = st.sampled_from([*sorted(BEFORE_FIRING), "preference_off", "not_visible", "no_recipient"])
STANDS = st.one_of(
    st.builds(Stand, OPEN_STATES, st.none(), NEARBY),
    st.builds(Stand, ENDED, st.none(), NEARBY),
    st.builds(Stand, st.just("skipped"), SKIPS, NEARBY),
)


@given(STANDS, OFFSETS, TASKS)
def test_the_same_change_twice_is_the_change_once(present: Stand, offset: int | None, task: TaskTimes) -> None:
    once = stand_after_change(present, offset_minutes=offset, task=task, now=NOW)
    assert stand_after_change(once, offset_minutes=offset, task=task, now=NOW) == once


@given(STANDS, OFFSETS, TASKS)
def test_nothing_past_becomes_pending_that_was_not_due_already(
    present: Stand, offset: int | None, task: TaskTimes
) -> None:
    stand = stand_after_change(present, offset_minutes=offset, task=task, now=NOW)
    if stand.state == "pending" and stand.fire_at <= NOW:
        assert stand == present


@given(STANDS, OFFSETS, TASKS)
def test_nothing_waits_to_fire_for_a_task_that_is_closed(present: Stand, offset: int | None, task: TaskTimes) -> None:
    stand = stand_after_change(present, offset_minutes=offset, task=task, now=NOW)
    if task.is_completed or task.is_deleted:
        assert stand.state not in ("pending", "claimed")
    if stand.state == "claimed":
        assert stand == present


@given(STANDS, OFFSETS, TASKS)
def test_there_is_a_reason_exactly_when_it_is_skipped(present: Stand, offset: int | None, task: TaskTimes) -> None:
    stand = stand_after_change(present, offset_minutes=offset, task=task, now=NOW)
    if stand != present:
        assert (stand.reason is not None) == (stand.state == "skipped")


@given(STANDS, TASKS)
def test_an_absolute_one_never_moves(present: Stand, task: TaskTimes) -> None:
    assert stand_after_change(present, offset_minutes=None, task=task, now=NOW).fire_at == present.fire_at


@given(st.integers(0, 3000), NEARBY, st.sampled_from(["is_completed", "is_deleted"]))
def test_closing_and_opening_again_gives_back_what_is_ahead(offset: int, due_at: datetime, how: str) -> None:
    task = OPEN._replace(due_at=due_at)
    first = first_stand(offset_minutes=offset, remind_at=None, task=task, now=NOW)
    shut = task._replace(is_completed=how == "is_completed", is_deleted=how == "is_deleted")
    closed = stand_after_change(first, offset_minutes=offset, task=shut, now=NOW)
    reopened = stand_after_change(closed, offset_minutes=offset, task=task, now=NOW)
    assert closed.state == "skipped"
    assert reopened.state == first.state
    assert reopened.fire_at == first.fire_at
