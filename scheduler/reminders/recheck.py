"""The last look before a reminder goes out (semantics, 3.4): a pure rule over the task, the person and their
wishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from scheduler.access import Action, Role, may, relations
from scheduler.reminders.rules import TASK_COMPLETED, TASK_DELETED

DEACTIVATED = "deactivated"
NOT_VISIBLE = "not_visible"
EMAIL_UNVERIFIED = "email_unverified"
PREFERENCE_OFF = "preference_off"
NO_RECIPIENT = "no_recipient"


class TaskNow(NamedTuple):
    """What of a task decides whether its reminders go out."""

    status: str
    is_deleted: bool
    creator_id: UUID
    assignee_ids: frozenset[UUID]
    shared_with: Mapping[UUID, str]
    """Permissions by person."""


class PersonNow(NamedTuple):
    """What of a person decides whether reminders go to them by e-mail."""

    id: UUID
    role: str
    is_active: bool
    email_verified: bool
    wants_email: bool


def reason_to_skip(task: TaskNow, person: PersonNow | None, *, require_verified_email: bool) -> str | None:
    """Why this person is not reminded of this task by e-mail, or None when they are."""
    if task.is_deleted:
        return TASK_DELETED
    if task.status == "completed":
        return TASK_COMPLETED
    if person is None or not person.is_active:
        return DEACTIVATED
    related = relations(
        person.id, creator_id=task.creator_id, assignee_ids=task.assignee_ids, shared_with=task.shared_with
    )
    if not may(Role(person.role), related, Action.SEE):
        return NOT_VISIBLE
    if require_verified_email and not person.email_verified:
        return EMAIL_UNVERIFIED
    return None if person.wants_email else PREFERENCE_OFF
