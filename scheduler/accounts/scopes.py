"""What a personal API token is for (contract, section 3): pure rules over names."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal, get_args

Scope = Literal["tasks:read", "tasks:write", "notifications", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
ADMIN: Scope = "admin"

_INCLUDED: dict[str, frozenset[str]] = {"tasks:write": frozenset({"tasks:read"})}
"""What a scope is for besides itself."""


def grants(given: Set[str], wanted: Scope) -> bool:
    """Whether a token with the scopes `given` is for what wants `wanted`."""
    return any(wanted == scope or wanted in _INCLUDED.get(scope, ()) for scope in given)
