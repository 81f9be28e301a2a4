"""The last look before sending: the first reason that holds is the one that is told."""

from __future__ import annotations

import pytest

from scheduler.identifiers import new_id
from scheduler.reminders.recheck import PersonNow, TaskNow, reason_to_skip

ALICE, BOB, CAROL, DAN = new_id(), new_id(), new_id(), new_id()
TASK = TaskNow("todo", is_deleted=False, creator_id=ALICE, assignee_ids=frozenset({BOB}), shared_with={DAN: "view"})
PERSON = PersonNow(BOB, "user", is_active=True, email_verified=True, wants_email=True)

done, binned = {"status": "completed"}, {"is_deleted": True}
gone, unverified, unwanted = {"is_active": False}, {"email_verified": False}, {"wants_email": False}


@pytest.mark.parametrize(
    ("task", "person", "verified_needed", "reason"),
    [
        ({}, {}, True, None),
        ({}, {"id": ALICE}, True, None),
        ({"status": "in_progress"}, {}, True, None),
        (binned, {}, True, "task_deleted"),
        (done, {}, True, "task_completed"),
        (done | binned, {}, True, "task_deleted"),
        ({}, gone, True, "deactivated"),
        ({}, {"id": CAROL}, True, "not_visible"),
        ({}, {"id": CAROL, "role": "manager"}, True, None),
        ({}, {"id": CAROL, "role": "admin"}, True, None),
        ({"assignee_ids": frozenset()}, {}, True, "not_visible"),
        ({}, {"id": DAN}, True, None),
        ({"shared_with": {DAN: "edit"}}, {"id": DAN}, True, None),
        ({"shared_with": {}}, {"id": DAN}, True, "not_visible"),
        ({}, unverified, True, "email_unverified"),
        ({}, unverified, False, None),
        ({}, unwanted, True, "preference_off"),
        (done, gone | unverified | unwanted, True, "task_completed"),
        ({}, gone | unverified | unwanted | {"id": CAROL}, True, "deactivated"),
        ({}, unverified | unwanted | {"id": CAROL}, True, "not_visible"),
        ({}, unverified | unwanted, True, "email_unverified"),
    ],
)
def test_table(task: dict[str, object], person: dict[str, object], verified_needed: bool, reason: str | None) -> None:
    assert (
        reason_to_skip(
            TASK._replace(**task),  # type: ignore[arg-type]
            PERSON._replace(**person),  # type: ignore[arg-type]
            require_verified_email=verified_needed,
        )
        == reason
    )


def test_somebody_who_is_not_there_any_more() -> None:
    assert reason_to_skip(TASK, None, require_verified_email=False) == "deactivated"
    assert reason_to_skip(TASK._replace(status="completed"), None, require_verified_email=False) == "task_completed"
