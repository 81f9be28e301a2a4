"""Section 2 of the contract, cell by cell."""

from __future__ import annotations

from itertools import product

import pytest

from scheduler.access import Action, Relation, Role, may, relations
from scheduler.identifiers import new_id

C, A = Relation.CREATOR, Relation.ASSIGNEE
RELATIONS = {
    "nobody": frozenset[Relation](),
    "creator": frozenset({C}),
    "assignee": frozenset({A}),
    "both": frozenset({C, A}),
}

# For user, manager and admin: which relations may.
EVERYONE = {"nobody", "creator", "assignee", "both"}
INVOLVED = {"creator", "assignee", "both"}
CREATORS = {"creator", "both"}
TABLE = {
    Action.SEE: (INVOLVED, EVERYONE, EVERYONE),
    Action.CHANGE: (INVOLVED, INVOLVED, EVERYONE),
    Action.CHANGE_STATUS: (INVOLVED, INVOLVED, EVERYONE),
    Action.ASSIGN: (CREATORS, EVERYONE, EVERYONE),
    Action.DELETE: (CREATORS, CREATORS, EVERYONE),
    Action.REMIND_ASSIGNEES: (INVOLVED, INVOLVED, EVERYONE),
    Action.REMIND_ME: (INVOLVED, EVERYONE, EVERYONE),
}


def test_the_table_knows_every_action() -> None:
    assert TABLE.keys() == set(Action)


@pytest.mark.parametrize(("action", "role", "relation"), list(product(Action, Role, RELATIONS)))
def test_who_may_do_what(action: Action, role: Role, relation: str) -> None:
    allowed = TABLE[action][list(Role).index(role)]
    assert may(role, RELATIONS[relation], action) == (relation in allowed)


@pytest.mark.parametrize(("role", "relation"), list(product(Role, RELATIONS)))
def test_nobody_may_do_what_they_may_not_see(role: Role, relation: str) -> None:
    if not may(role, RELATIONS[relation], Action.SEE):
        assert not any(may(role, RELATIONS[relation], action) for action in Action)


def test_relations() -> None:
    alice, bob, carol = new_id(), new_id(), new_id()
    assert relations(alice, creator_id=alice, assignee_ids={bob}) == {C}
    assert relations(bob, creator_id=alice, assignee_ids={bob, carol}) == {A}
    assert relations(alice, creator_id=alice, assignee_ids={alice}) == {C, A}
    assert relations(carol, creator_id=alice, assignee_ids={bob}) == set()
