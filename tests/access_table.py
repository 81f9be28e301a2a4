"""Section 2 of the contract as it is written there: who may do what, for the tests of the rules and of the routes."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

from scheduler.access import Action, Relation, Right, Role

CREATOR, ASSIGNEE, VIEW, EDIT, AUTHOR = (
    Relation.CREATOR,
    Relation.ASSIGNEE,
    Relation.VIEWER,
    Relation.EDITOR,
    Relation.AUTHOR,
)
INVOLVED = {CREATOR, ASSIGNEE, VIEW, EDIT}
AS_USER: Literal["as user"] = "as user"
EVERY: Literal["every task"] = "every task"
Cell = set[Relation] | Literal["as user", "every task"]

TABLE: dict[Action, tuple[set[Relation], Cell, Cell]] = {
    # For user, manager and admin.
    Action.SEE: (INVOLVED, EVERY, EVERY),
    Action.CHANGE: ({CREATOR, ASSIGNEE, EDIT}, AS_USER, EVERY),
    Action.CHANGE_STATUS: ({CREATOR, ASSIGNEE, EDIT}, AS_USER, EVERY),
    Action.REMIND_ASSIGNEES: ({CREATOR, ASSIGNEE, EDIT}, AS_USER, EVERY),
    Action.ASSIGN: ({CREATOR, EDIT}, EVERY, EVERY),
    Action.SHARE: ({CREATOR, EDIT}, EVERY, EVERY),
    Action.DELETE: ({CREATOR}, AS_USER, EVERY),
    Action.RESTORE: ({CREATOR}, AS_USER, EVERY),
    Action.COMMENT: (INVOLVED, EVERY, EVERY),
    Action.REMIND_ME: (INVOLVED, EVERY, EVERY),
    Action.EDIT_COMMENT: ({AUTHOR}, AS_USER, AS_USER),
    Action.DELETE_COMMENT: ({AUTHOR}, AS_USER, EVERY),
}

RIGHTS: dict[Right, set[Role]] = {
    Right.LOOK_UP_NAMES: {Role.USER, Role.MANAGER, Role.ADMIN},
    Right.LIST_EVERY_TASK: {Role.MANAGER, Role.ADMIN},
    Right.ADMINISTER: {Role.ADMIN},
}


def is_allowed(role: Role, relations: Set[Relation], action: Action) -> bool:
    """What the table says; and nobody may do anything with what they do not see."""
    return _says(Action.SEE, role, relations) and _says(action, role, relations)


def _says(action: Action, role: Role, relations: Set[Relation]) -> bool:
    of_user, of_manager, of_admin = TABLE[action]
    cell = {Role.USER: of_user, Role.MANAGER: of_manager, Role.ADMIN: of_admin}[role]
    if cell == EVERY:
        return True
    return bool(relations & (of_user if isinstance(cell, str) else cell))
