"""People, as clients see and change them."""

from datetime import datetime
from typing import Annotated, Literal, NotRequired
from uuid import UUID

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from web.schemas.fields import Body, Line, LongText, PageQuery, TimeZone, Total, optional, repeated

Name = Annotated[str, Line(1, 200, {"examples": ["Ada Lovelace"]})]
# E.164: at most 15 digits, the first of them no zero.
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$", examples=["+4930901820"])]
# RFC 5646, in the shape that browsers send.
Locale = Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", examples=["de-AT"])]


Role = Literal["admin", "manager", "user"]
AccountStatus = Literal["active", "deactivated"]


class UserQuery(PageQuery):
    """Which people. A filter given several times means any of its values."""

    q: Annotated[
        Annotated[str, Line(0, 200)] | None,
        Field(description="Part of the name, without regard to case and accents, or of the address"),
    ] = None
    role: list[Role] = repeated()
    status: list[AccountStatus] = repeated()


class LookupQuery(PageQuery):
    """Whose name."""

    q: Annotated[
        Annotated[str, Line(0, 200)],
        Field(description="Part of the name, without regard to case and accents; empty: everybody"),
    ] = ""


class UserChange(Body):
    """What one may change of oneself (JSON Merge Patch)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada King", "timezone": "Europe/London"}]})

    name: Name = optional()
    bio: Annotated[str, LongText(2000)] = optional()
    phone: Phone | None = optional()
    timezone: TimeZone = optional()
    locale: Locale = optional()


class User(TypedDict):
    """A person with an account."""

    id: UUID
    email: str
    name: str
    role: Role
    status: AccountStatus
    email_verified: bool
    phone: str | None
    phone_verified: bool
    bio: str
    avatar_url: str | None
    timezone: str
    locale: str
    two_factor: bool
    created_at: datetime
    updated_at: datetime


class UserList(TypedDict):
    """A page of people, newest first."""

    items: list[User]
    next_cursor: str | None
    total: NotRequired[Total]


class Person(TypedDict):
    """A person as others see them."""

    id: UUID
    name: str


class FoundPerson(Person):
    """A person as they are found by name."""

    avatar_url: str | None


class FoundPersonList(TypedDict):
    """A page of people, by name."""

    items: list[FoundPerson]
    next_cursor: str | None
    total: NotRequired[Total]
