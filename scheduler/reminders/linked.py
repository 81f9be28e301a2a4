"""Whom and what a link of a reminder e-mail stands for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Reminder, User
from scheduler.access import Actor, Role
from scheduler.errors import InvalidToken, NotFound
from scheduler.links import LIFETIME, Links


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
