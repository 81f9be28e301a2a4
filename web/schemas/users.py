"""People, as clients see and change them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from web.schemas.fields import Body, Line, LongText, TimeZone, optional

Name = Annotated[str, Line(1, 200, {"examples": ["Ada Lovelace"]})]
# E.164: at most 15 digits, the first of them no zero.
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$", examples=["+4930901820"])]
# RFC 5646, in the shape that browsers send.
Locale = Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", examples=["de-AT"])]


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
    role: Literal["admin", "manager", "user"]
    status: Literal["active", "deactivated"]
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


class Person(TypedDict):
    """A person as others see them."""

    id: UUID
    name: str
