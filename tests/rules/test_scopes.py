"""What a personal API token is for: the contract's section 3 as a table."""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from scheduler.accounts.scopes import SCOPES, Scope, grants

GRANTED: dict[str, set[Scope]] = {
    "tasks:read": {"tasks:read"},
    "tasks:write": {"tasks:read", "tasks:write"},
    "notifications": {"notifications"},
    "admin": {"admin"},
}


def test_there_are_these_and_no_others() -> None:
    assert set(SCOPES) == set(GRANTED)


@pytest.mark.parametrize(
    "given", list(chain.from_iterable(combinations(SCOPES, size) for size in range(len(SCOPES) + 1)))
)
def test_every_set_of_scopes_is_for_what_each_of_them_is_for(given: tuple[Scope, ...]) -> None:
    expected = set().union(*(GRANTED[scope] for scope in given))
    assert {wanted for wanted in SCOPES if grants(frozenset(given), wanted)} == expected


def test_an_unknown_scope_is_for_nothing() -> None:
    assert not any(grants({"tasks", "tasks:", "", "all", "*", "TASKS:READ"}, wanted) for wanted in SCOPES)
