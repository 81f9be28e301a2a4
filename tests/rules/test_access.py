"""Section 2 of the contract, cell by cell."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from scheduler.access import RIGHTS, RULES, Action, Relation, Right, Role, has_right, may, may_see, relations
from scheduler.identifiers import new_id
from tests import access_table
from tests.access_table import ASSIGNEE, AUTHOR, CREATOR, EDIT, TABLE, VIEW, is_allowed

TOGETHER = [
    frozenset(some)
    for size in range(len(Relation) + 1)
    for some in combinations(Relation, size)
    if not {VIEW, EDIT} <= set(some)  # a share has one permission
]
"""All that one can be to a task at once, nothing included."""


def test_the_table_knows_every_action_and_every_right() -> None:
    assert TABLE.keys() == RULES.keys() == set(Action)
    assert access_table.RIGHTS.keys() == RIGHTS.keys() == set(Right)
    assert len(TOGETHER) == 24


@pytest.mark.parametrize(("action", "role"), list(product(Action, Role)))
def test_who_may_do_what(action: Action, role: Role) -> None:
    wrong = [some for some in TOGETHER if may(role, some, action) != is_allowed(role, some, action)]
    assert wrong == []


@pytest.mark.parametrize(
    ("role", "relation", "action", "allowed"),
    [
        (Role.USER, None, Action.SEE, False),
        (Role.USER, VIEW, Action.SEE, True),
        (Role.USER, VIEW, Action.CHANGE_STATUS, False),
        (Role.USER, VIEW, Action.REMIND_ME, True),
        (Role.USER, VIEW, Action.REMIND_ASSIGNEES, False),
        (Role.USER, EDIT, Action.CHANGE, True),
        (Role.USER, EDIT, Action.SHARE, True),
        (Role.USER, EDIT, Action.DELETE, False),
        (Role.USER, ASSIGNEE, Action.CHANGE_STATUS, True),
        (Role.USER, ASSIGNEE, Action.ASSIGN, False),
        (Role.USER, CREATOR, Action.DELETE, True),
        (Role.MANAGER, None, Action.SEE, True),
        (Role.MANAGER, None, Action.CHANGE, False),
        (Role.MANAGER, None, Action.CHANGE_STATUS, False),
        (Role.MANAGER, None, Action.ASSIGN, True),
        (Role.MANAGER, None, Action.SHARE, True),
        (Role.MANAGER, None, Action.DELETE, False),
        (Role.MANAGER, None, Action.COMMENT, True),
        (Role.MANAGER, None, Action.DELETE_COMMENT, False),
        (Role.ADMIN, None, Action.DELETE, True),
        (Role.ADMIN, None, Action.EDIT_COMMENT, False),
        (Role.ADMIN, AUTHOR, Action.EDIT_COMMENT, True),
        (Role.ADMIN, None, Action.DELETE_COMMENT, True),
        (Role.USER, AUTHOR, Action.EDIT_COMMENT, False),  # who does not see the task any more
    ],
)
def test_cells_spelled_out(role: Role, relation: Relation | None, action: Action, allowed: bool) -> None:
    """So that a slip in how the table is read shows."""
    assert may(role, {relation} if relation else set(), action) is allowed


@pytest.mark.parametrize("role", Role)
def test_nobody_may_do_what_they_may_not_see(role: Role) -> None:
    for some in TOGETHER:
        if not may(role, some, Action.SEE):
            assert not any(may(role, some, action) for action in Action), some


@pytest.mark.parametrize("role", Role)
def test_in_the_bin_a_task_is_there_for_those_who_may_take_it_out(role: Role) -> None:
    for some in TOGETHER:
        assert may_see(role, some, in_bin=False) == is_allowed(role, some, Action.SEE), some
        assert may_see(role, some, in_bin=True) == is_allowed(role, some, Action.RESTORE), some


def test_being_more_to_a_task_never_takes_anything_away() -> None:
    for role, action, some in product(Role, Action, TOGETHER):
        if may(role, some, action):
            assert all(may(role, more, action) for more in TOGETHER if some < more)


@pytest.mark.parametrize(("right", "role"), list(product(Right, Role)))
def test_who_has_which_right(right: Right, role: Role) -> None:
    assert has_right(role, right) == (role in access_table.RIGHTS[right])


def test_relations() -> None:
    alice, bob, carol, dora = new_id(), new_id(), new_id(), new_id()

    def of(person: object, **people: object) -> frozenset[Relation]:
        values = {"creator_id": alice, "assignee_ids": {bob}, "shared_with": {carol: "view", dora: "edit"}} | people
        return relations(person, **values)  # type: ignore[arg-type]

    assert of(alice) == {CREATOR}
    assert of(bob) == {ASSIGNEE}
    assert of(carol) == {VIEW}
    assert of(dora) == {EDIT}
    assert of(new_id()) == frozenset()
    assert of(alice, assignee_ids={alice}, shared_with={alice: "view"}) == {CREATOR, ASSIGNEE, VIEW}
    assert of(bob, shared_with={bob: "edit"}) == {ASSIGNEE, EDIT}
    assert of(bob, shared_with={bob: "anything else"}) == {ASSIGNEE, VIEW}  # the less
