"""Who may do what with a task: pure rules over the actor's role and their relation to the task (contract,
section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a person is to the service."""

    USER = "user"
    MANAGER = "manager"
    ADMIN = "admin"


class Relation(StrEnum):
    """What a person is to a task."""

    CREATOR = "creator"
    ASSIGNEE = "assignee"


class Action(StrEnum):
    """What one can do with a task."""

    SEE = "see"
    CHANGE = "change"
    CHANGE_STATUS = "change_status"
    ASSIGN = "assign"
    DELETE = "delete"
    REMIND_ASSIGNEES = "remind_assignees"
    REMIND_ME = "remind_me"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. `session_id` is the sign-in that the request came with."""

    user_id: UUID
    role: Role
    session_id: UUID | None = None
    timezone: str = "UTC"
    email_verified: bool = False


_RELATIONS_THAT_MAY = {
    Action.SEE: {Relation.CREATOR, Relation.ASSIGNEE},
    Action.CHANGE: {Relation.CREATOR, Relation.ASSIGNEE},
    Action.CHANGE_STATUS: {Relation.CREATOR, Relation.ASSIGNEE},
    Action.ASSIGN: {Relation.CREATOR},
    Action.DELETE: {Relation.CREATOR},
    Action.REMIND_ASSIGNEES: {Relation.CREATOR, Relation.ASSIGNEE},
    Action.REMIND_ME: {Relation.CREATOR, Relation.ASSIGNEE},
}
_MANAGERS_MAY = {Action.SEE, Action.ASSIGN, Action.REMIND_ME}


def may(role: Role, relations: frozenset[Relation], action: Action) -> bool:
    """Whether somebody of `role` with these `relations` to a task may do `action` with it."""
    if role is Role.ADMIN:
        return True
    if role is Role.MANAGER and action in _MANAGERS_MAY:
        return True
    return not relations.isdisjoint(_RELATIONS_THAT_MAY[action])


def relations(user_id: UUID, *, creator_id: UUID, assignee_ids: frozenset[UUID] | set[UUID]) -> frozenset[Relation]:
    """What `user_id` is to a task with this creator and these assignees."""
    found = set()
    if user_id == creator_id:
        found.add(Relation.CREATOR)
    if user_id in assignee_ids:
        found.add(Relation.ASSIGNEE)
    return frozenset(found)
