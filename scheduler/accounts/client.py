"""Where a request comes from."""

from __future__ import annotations

from typing import NamedTuple


class Client(NamedTuple):
    """The caller's address and program, as sessions and the activity log keep them."""

    ip: str
    user_agent: str
