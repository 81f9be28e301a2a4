"""Who may do what: the whole table of the contract (section 2) as data, and the pure functions that read it.

Everything else asks here. What somebody may not see is not there for them (404); what they see but may not do is
refused (403): `may` says no to both, `may_see` tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class Role(StrEnum):
    """What a person is to the service."""

    USER = "user"
    MANAGER = "manager"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a task is shared for."""

    VIEW = "view"
    EDIT = "edit"


class Relation(StrEnum):
    """What a person is to a task, or to a comment on it."""

    CREATOR = "creator"
    ASSIGNEE = "assignee"
    VIEWER = "viewer"
    """It is shared with them to view."""
    EDITOR = "editor"
    """It is shared with them to edit."""
    AUTHOR = "author"
    """Of the comment, whatever they are to its task."""


class Action(StrEnum):
    """What one can do with a task, and with the comments on it."""

    SEE = "see"
    CHANGE = "change"
    """Title, description, dates, tags, dependencies, attachments; all but what has an action of its own here."""
    CHANGE_STATUS = "change_status"
    REMIND_ASSIGNEES = "remind_assignees"
    REMIND_ME = "remind_me"
    """A private reminder of one's own."""
    ASSIGN = "assign"
    SHARE = "share"
    DELETE = "delete"
    RESTORE = "restore"
    COMMENT = "comment"
    EDIT_COMMENT = "edit_comment"
    DELETE_COMMENT = "delete_comment"


class Right(StrEnum):
    """What one can do with the service, whatever the task."""

    LOOK_UP_NAMES = "look_up_names"
    LIST_EVERY_TASK = "list_every_task"
    ADMINISTER = "administer"
    """Users, roles, jobs, logs: all that is for administrators."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. `session_id` is the sign-in that the request came with, `scopes` what a personal API token is for (None
    with a session: that may do all that the person may)."""

    user_id: UUID
    role: Role
    session_id: UUID | None = None
    timezone: str = "UTC"
    email_verified: bool = False
    scopes: frozenset[str] | None = None


class Rule(NamedTuple):
    """Who may: those who are one of `relations` to it, and those who have one of `roles`, whatever they are to it."""

    relations: frozenset[Relation]
    roles: frozenset[Role]


_NOBODY: frozenset[Role] = frozenset()
_ADMINS = frozenset({Role.ADMIN})
_MANAGERS = frozenset({Role.MANAGER, Role.ADMIN})
_CREATOR = frozenset({Relation.CREATOR})
_AUTHOR = frozenset({Relation.AUTHOR})
_WHO_SHARE = frozenset({Relation.CREATOR, Relation.EDITOR})
_WHO_WORK = frozenset({Relation.CREATOR, Relation.ASSIGNEE, Relation.EDITOR})
_WHO_SEE = _WHO_WORK | {Relation.VIEWER}

RULES: Mapping[Action, Rule] = {
    Action.SEE: Rule(_WHO_SEE, _MANAGERS),
    Action.CHANGE: Rule(_WHO_WORK, _ADMINS),
    Action.CHANGE_STATUS: Rule(_WHO_WORK, _ADMINS),
    Action.REMIND_ASSIGNEES: Rule(_WHO_WORK, _ADMINS),
    Action.REMIND_ME: Rule(_WHO_SEE, _MANAGERS),
    Action.ASSIGN: Rule(_WHO_SHARE, _MANAGERS),
    Action.SHARE: Rule(_WHO_SHARE, _MANAGERS),
    Action.DELETE: Rule(_CREATOR, _ADMINS),
    Action.RESTORE: Rule(_CREATOR, _ADMINS),
    Action.COMMENT: Rule(_WHO_SEE, _MANAGERS),
    Action.EDIT_COMMENT: Rule(_AUTHOR, _NOBODY),
    Action.DELETE_COMMENT: Rule(_AUTHOR, _ADMINS),
}
"""The table. Beyond it, nobody may do anything with what they do not see."""

RIGHTS: Mapping[Right, frozenset[Role]] = {
    Right.LOOK_UP_NAMES: frozenset(Role),
    Right.LIST_EVERY_TASK: _MANAGERS,
    Right.ADMINISTER: _ADMINS,
}


def may(role: Role, relations: Set[Relation], action: Action) -> bool:
    """Whether somebody of `role` with these `relations` to a task (and, of actions with a comment, to that) may do
    `action`."""
    # An author who does not see the task any more has no comment there to edit.
    return _permits(RULES[Action.SEE], role, relations) and _permits(RULES[action], role, relations)


def may_see(role: Role, relations: Set[Relation], *, in_bin: bool) -> bool:
    """Whether a task is there for them. In the bin it is only for those who may take it out again."""
    return may(role, relations, Action.RESTORE if in_bin else Action.SEE)


def has_right(role: Role, right: Right) -> bool:
    """Whether people of `role` may do that."""
    return role in RIGHTS[right]


def relations(
    user_id: UUID, *, creator_id: UUID, assignee_ids: Set[UUID], shared_with: Mapping[UUID, str]
) -> frozenset[Relation]:
    """What `user_id` is to a task with this creator, these assignees, and shared with these people, each for a
    `Permission`."""
    found = set()
    if user_id == creator_id:
        found.add(Relation.CREATOR)
    if user_id in assignee_ids:
        found.add(Relation.ASSIGNEE)
    if user_id in shared_with:
        found.add(Relation.EDITOR if shared_with[user_id] == Permission.EDIT else Relation.VIEWER)
    return frozenset(found)


def _permits(rule: Rule, role: Role, relations: Set[Relation]) -> bool:
    return role in rule.roles or not rule.relations.isdisjoint(relations)
