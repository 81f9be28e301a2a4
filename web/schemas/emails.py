"""The outbox of e-mails, for operators."""

from datetime import datetime
from typing import Annotated, Literal, NotRequired
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from web.schemas.fields import Instant, Line, PageQuery, Total, repeated

State = Literal["pending", "sending", "sent", "dead"]
Template = Literal[
    "reminder",
    "missed_reminders",
    "overdue",
    "assigned",
    "shared",
    "mentioned",
    "commented",
    "digest",
    "verify_email",
    "reset_password",
    "change_email",
    "invitation",
    "security",
    "account_deletion",
    "schedule_failed",
]


class EmailQuery(PageQuery):
    """Which e-mails. A filter given several times means any of its values."""

    state: list[State] = repeated()
    template: list[Template] = repeated()
    since: Annotated[Instant | None, Field(description="Written then or later")] = None
    until: Annotated[Instant | None, Field(description="Written before then")] = None
    q: Annotated[
        Annotated[str, Line(1, 200)] | None, Field(description="Part of the address or the subject, in any case")
    ] = None


class Email(TypedDict):
    """One e-mail to one address."""

    id: UUID
    message_id: str
    to: str
    subject: str
    template: str
    state: State
    attempts: int
    next_attempt_at: Annotated[datetime | None, Field(description="While it is pending")]
    sent_at: datetime | None
    last_error: str | None
    user_id: UUID | None
    created_at: datetime


class EmailList(TypedDict):
    """A page of e-mails, newest first."""

    items: list[Email]
    next_cursor: str | None
    total: NotRequired[Total]
