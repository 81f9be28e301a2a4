"""Deliveries: what went out, what was skipped and why, what is planned."""

from datetime import datetime
from typing import Annotated, Literal, NotRequired
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from web.schemas.fields import Instant, PageQuery, Total


class DeliveryQuery(PageQuery):
    """Which deliveries, by fire time."""

    since: Annotated[Instant | None, Field(description="Inclusive; by default 30 days back")] = None
    until: Annotated[Instant | None, Field(description="Exclusive; by default 7 days ahead")] = None


class Delivery(TypedDict):
    """One person told of one firing of one reminder through one channel."""

    id: UUID
    reminder_id: UUID
    task_id: UUID
    user_id: UUID
    channel: Literal["email", "push", "in_app", "sms"]
    state: Literal["planned", "sent", "skipped", "failed"]
    reason: str | None
    fire_at: datetime
    sent_at: datetime | None
    message_id: str | None


class DeliveryList(TypedDict):
    """A page of deliveries, latest fire time first."""

    items: list[Delivery]
    next_cursor: str | None
    total: NotRequired[Total]
