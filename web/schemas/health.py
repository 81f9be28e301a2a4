"""What the service says of itself."""

from typing import Literal

from typing_extensions import TypedDict

State = Literal["ok", "unavailable"]


class Health(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class Checks(TypedDict):
    """Each part that serving needs."""

    database: State
    redis: State
    schema: State


class Readiness(TypedDict):
    """Whether all parts are there."""

    status: State
    checks: Checks
