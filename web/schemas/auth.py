"""Signing up, in and out."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from web.schemas.fields import Body, Email, Line, TimeZone, optional
from web.schemas.users import Name, User

_SOME_COMMON_ONES = ["0000000000", "1111111111", "1234567890", "0123456789", "qwertyuiop", "password12"]
Password = Annotated[
    str,
    Line(
        10,
        128,
        {
            "description": "None of the most common ones (a few are named here), nor the e-mail address",
            "not": {"enum": _SOME_COMMON_ONES},
        },
    ),
]
# Whatever was once taken must be answered as right or wrong, and never as malformed.
GivenText = Annotated[str, Line(0, 1000)]
Token = Annotated[str, Line(1, 1000)]


class SignUp(Body):
    """A new account."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "email": "ada@example.com",
                    "password": "correct horse battery",
                    "name": "Ada",
                    "timezone": "Europe/London",
                }
            ]
        }
    )

    email: Email
    password: Password
    name: Name
    timezone: TimeZone = optional()


class LogIn(Body):
    """Who you are."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "ada@example.com", "password": "correct horse battery"}]}
    )

    email: GivenText
    password: GivenText


class RefreshTokenExchange(Body):
    """The refresh token that came with the last tokens."""

    refresh_token: Token


class EmailVerification(Body):
    """The token in the link of the verification e-mail."""

    token: Token


class Tokens(TypedDict):
    """What a sign-in gives."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Seconds until the access token ends")]
    user: User
