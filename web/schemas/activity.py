"""What people did."""

from datetime import datetime
from typing import Annotated, Any, NotRequired
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from web.schemas.fields import Total


class OwnActivity(TypedDict):
    """One thing that the caller did."""

    id: UUID
    at: datetime
    action: Annotated[str, Field(description="Such as `signed_in` or `password_changed`")]
    target_type: Annotated[str, Field(description="What it was done to: `user`, `task`, …")]
    target_id: UUID | None
    ip: Annotated[str | None, Field(description="Where the request came from")]
    user_agent: str | None
    changes: Annotated[dict[str, list[Any]], Field(description="Each field's old and new value")]


class OwnActivityList(TypedDict):
    """A page of them, newest first."""

    items: list[OwnActivity]
    next_cursor: str | None
    total: NotRequired[Total]
