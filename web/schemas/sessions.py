"""Where one is signed in, and one's API tokens."""

from datetime import datetime
from typing import Annotated, NotRequired
from uuid import UUID

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from scheduler.accounts.scopes import SCOPES, Scope
from web.schemas.fields import Body, Instant, Line, PageQuery, Total


class SessionQuery(PageQuery):
    """How many of the sessions, and from where."""


class Session(TypedDict):
    """One sign-in on one device."""

    id: UUID
    created_at: datetime
    last_used_at: Annotated[datetime, Field(description="When it last got new tokens")]
    ip: str
    user_agent: str
    current: Annotated[bool, Field(description="Whether this request came with it")]


class SessionList(TypedDict):
    """A page of sessions, the newest sign-in first."""

    items: list[Session]
    next_cursor: str | None
    total: NotRequired[Total]


class ApiTokenQuery(PageQuery):
    """How many of the tokens, and from where."""


class ApiTokenCreate(Body):
    """A token for a program."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Backup", "scopes": ["tasks:read"], "expires_at": None}]}
    )

    name: Annotated[str, Line(1, 100)]
    scopes: Annotated[
        list[Scope],
        Field(
            min_length=1,
            max_length=len(SCOPES),
            description="What it is for. `tasks:read`: reading tasks and all that hangs on them; `tasks:write`: that, "
            "and changing them, schedules and runs; `notifications`; `admin`: an administrator's, all under /admin",
        ),
    ]
    expires_at: Annotated[
        Instant | None, Field(description="From when on it works no more; null: it works until it is deleted")
    ] = None


class ApiToken(TypedDict):
    """A token, without its text."""

    id: UUID
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="To the minute")]


class NewApiToken(ApiToken):
    """A token that was just made."""

    token: Annotated[str, Field(description="To be sent as `Authorization: Bearer …`. It is not shown again")]


class ApiTokenList(TypedDict):
    """A page of tokens, newest first."""

    items: list[ApiToken]
    next_cursor: str | None
    total: NotRequired[Total]
