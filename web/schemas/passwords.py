"""Passwords forgotten, reset and changed."""

from typing import Annotated

from pydantic import ConfigDict, Field

from web.schemas.auth import GivenText, Password, Token
from web.schemas.fields import Body, Email


class ForgottenPassword(Body):
    """Whose password is forgotten."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com"}]})

    email: Email


class PasswordReset(Body):
    """The token in the link of the e-mail, and what the password shall be."""

    token: Token
    password: Password


class PasswordChange(Body):
    """The present password, and what it shall be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"current_password": "correct horse battery", "password": "another long passphrase"}]
        }
    )

    current_password: GivenText
    password: Password


class NewPasswordForm(Body):
    """What the page behind the link sends. Whatever is wrong with it is told on the page."""

    model_config = ConfigDict(extra="ignore")

    password: Annotated[str, Field(max_length=10_000)] = ""
