"""Telephone numbers and the codes that confirm them."""

from typing import Annotated

from pydantic import ConfigDict

from web.schemas.fields import Body, Line
from web.schemas.users import Phone


class PhoneNumber(Body):
    """A telephone number, as E.164 writes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"phone": "+4930901820"}]})

    phone: Phone


class PhoneVerification(Body):
    """The code in the text message."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "123456"}]})

    code: Annotated[str, Line(1, 20)]
