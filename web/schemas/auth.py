"""Signing up, in and out."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from scheduler.accounts.passwords import LONGEST, SHORTEST
from web.schemas.fields import Body, Email, Line, TimeZone, optional
from web.schemas.users import Name, User

# How long it is can only be told after NFKC, which no schema can say: `scheduler.accounts.passwords` has the rule.
Password = Annotated[
    str,
    Line(
        0,  # how long it must be is said below; spaces alone are characters too
        1000,
        {
            "description": f"{SHORTEST} to {LONGEST} characters (code points after NFKC); none of the most common "
            "passwords, nor the e-mail address"
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
    otp: Annotated[
        GivenText | None,
        Field(
            description="The code that the authenticator shows, or a recovery code; of an account without two-factor "
            "sign-in it is ignored"
        ),
    ] = None


class RefreshTokenExchange(Body):
    """The refresh token that came with the last tokens."""

    refresh_token: Token


class EmailVerification(Body):
    """The token in the link of the verification e-mail."""

    token: Token


class OneTimeCode(Body):
    """The code that the authenticator shows."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"otp": "123456"}]})

    otp: GivenText


class TwoFactorRemoval(Body):
    """Who you are, in both ways."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"password": "correct horse battery", "otp": "123456"}]})

    password: GivenText
    otp: Annotated[GivenText, Field(description="The code that the authenticator shows, or a recovery code")]


class TwoFactorEnrolment(TypedDict):
    """What an authenticator is set up with; it is not shown again."""

    secret: Annotated[str, Field(description="In base32, for those who can't scan")]
    otpauth_uri: str
    qr_svg: Annotated[str, Field(description="`otpauth_uri` as a QR code: one SVG element")]


class RecoveryCodes(TypedDict):
    """Each signs in once in place of the authenticator's code. They are not shown again."""

    recovery_codes: Annotated[list[str], Field(min_length=10, max_length=10)]


class Tokens(TypedDict):
    """What a sign-in gives."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Seconds until the access token ends")]
    user: User
