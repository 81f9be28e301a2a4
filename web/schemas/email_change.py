"""Another e-mail address for one's account."""

from pydantic import ConfigDict

from web.schemas.auth import GivenText
from web.schemas.fields import Body, Email


class EmailChange(Body):
    """The new address, and one's password."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "ada@example.org", "password": "correct horse battery"}]}
    )

    email: Email
    password: GivenText
