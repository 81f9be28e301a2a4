"""What stands in the links of e-mails. Unknown parameters are ignored: mail programs and their scanners add
some."""

from typing import Annotated, Literal

from pydantic import ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from web.schemas.fields import Line, Query, Truth, Whole
from web.schemas.reminders import LONGEST_SNOOZE


class LinkQuery(Query):
    """A link."""

    model_config = ConfigDict(extra="ignore")

    token: Annotated[str, Line(1, 1000)]


class SnoozeLinkQuery(LinkQuery):
    """How long to snooze: just one of the two."""

    minutes: Annotated[int, Whole(1, LONGEST_SNOOZE, as_text=True)] | None = None
    until: Literal["tomorrow"] | None = None

    @model_validator(mode="after")
    def _one_time(self) -> "SnoozeLinkQuery":
        if (self.minutes is None) == (self.until is None):
            raise PydanticCustomError("exactly_one", "Give exactly one of minutes and until")
        return self


class UnsubscribeLinkQuery(LinkQuery):
    """`again=true` turns the e-mails on again."""

    again: Truth = False
