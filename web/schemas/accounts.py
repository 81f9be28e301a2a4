"""Accounts, as administrators make and change them, and as people leave them."""

from pydantic import ConfigDict

from web.schemas.auth import GivenText, Password
from web.schemas.fields import Body, Email, TimeZone, optional
from web.schemas.users import AccountStatus, Name, Role, UserChange


class Confirmation(Body):
    """Your password once more, before something serious is done."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"password": "correct horse battery"}]})

    password: GivenText


class UserCreate(Body):
    """A new account for somebody."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "ada@example.com", "name": "Ada", "role": "manager"}]}
    )

    email: Email
    name: Name
    role: Role = "user"
    timezone: TimeZone = optional()
    password: Password = optional()


class UserEdit(UserChange):
    """What an administrator may change of somebody (JSON Merge Patch)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "manager"}]})

    role: Role = optional()
    status: AccountStatus = optional()
