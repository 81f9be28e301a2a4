"""Whom and what a link of an e-mail stands for, and a person's wish for reminder e-mails.

The few statements that the pages need and no service has: they belong into `scheduler` once more than these
pages ask.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, NotificationPreference, Reminder, User
from models.delivery import Channel
from scheduler.access import Actor, Role
from scheduler.errors import InvalidToken, NotFound
from scheduler.links import LIFETIME, Links

REMINDER = "reminder"


class Linked(NamedTuple):
    """What a link stands for: the person acts as themselves, without having signed in."""

    actor: Actor
    email: str
    reminder_id: UUID


async def read_link(
    session: AsyncSession, *, links: Links, token: str, now: datetime, lifetime: timedelta | None = LIFETIME
) -> Linked:
    """Whose link it is. Raises InvalidToken when it is not ours, too old, or its person is not active any
    more."""
    link = links.read(token, now=now, lifetime=lifetime)
    query = select(User.id, User.role, User.status, User.timezone, User.email, User.email_verified_at)
    person = (await session.execute(query.where(User.id == link.user_id))).one_or_none()
    if person is None or person.status != "active":
        raise InvalidToken()
    actor = Actor(
        user_id=person.id,
        role=Role(person.role),
        timezone=person.timezone,
        email_verified=person.email_verified_at is not None,
    )
    return Linked(actor, person.email, link.reminder_id)


async def task_of(session: AsyncSession, linked: Linked) -> UUID:
    """The task that the link's reminder is (or was) for. Raises NotFound when nothing knows it any more."""
    queries = (
        select(Reminder.task_id).where(Reminder.id == linked.reminder_id),
        # The reminder was deleted since; what it sent is still in the ledger.
        select(Delivery.task_id).where(Delivery.reminder_id == linked.reminder_id).limit(1),
    )
    for query in queries:
        task_id = (await session.execute(query)).scalar_one_or_none()
        if task_id is not None:
            return task_id
    raise NotFound()


async def wants_reminder_emails(session: AsyncSession, *, user_id: UUID) -> bool:
    """Whether reminders reach this person by e-mail; they do unless the person said no."""
    query = select(NotificationPreference.enabled).where(*_preference(user_id))
    return (await session.execute(query)).scalar_one_or_none() is not False


async def set_reminder_emails(session: AsyncSession, *, user_id: UUID, enabled: bool) -> None:
    """Turn reminder e-mails on or off."""
    change = update(NotificationPreference).where(*_preference(user_id)).values(enabled=enabled)
    if (await session.execute(change)).rowcount:  # type: ignore[attr-defined]
        return
    row = {"user_id": user_id, "type": REMINDER, "channel": Channel.EMAIL.value, "enabled": enabled}
    try:
        async with session.begin_nested():
            await session.execute(insert(NotificationPreference).values(row))
    except IntegrityError:  # a second click was faster
        await session.execute(change)


def _preference(user_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        NotificationPreference.user_id == user_id,
        NotificationPreference.type == REMINDER,
        NotificationPreference.channel == Channel.EMAIL.value,
    )
