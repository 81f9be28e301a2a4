"""A person's wishes for notifications; so far whether reminders reach them by e-mail."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import NotificationPreference
from models.delivery import Channel
from scheduler.database import affected

REMINDER = "reminder"


async def wants_reminder_emails(session: AsyncSession, *, user_id: UUID) -> bool:
    """Whether reminders reach this person by e-mail; they do unless the person said no."""
    query = select(NotificationPreference.enabled).where(*_preference(user_id))
    return (await session.execute(query)).scalar_one_or_none() is not False


async def set_reminder_emails(session: AsyncSession, *, user_id: UUID, enabled: bool) -> None:
    """Turn reminder e-mails on or off."""
    change = update(NotificationPreference).where(*_preference(user_id)).values(enabled=enabled)
    if affected(await session.execute(change)):
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
