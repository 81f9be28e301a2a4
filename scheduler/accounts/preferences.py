"""A person's wishes for notifications; so far whether reminders reach them by e-mail."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import NotificationPreference
from models.delivery import Channel
from scheduler.upsert import upsert

REMINDER = "reminder"


async def wants_reminder_emails(session: AsyncSession, *, user_id: UUID) -> bool:
    """Whether reminders reach this person by e-mail; they do unless the person said no."""
    query = select(NotificationPreference.enabled).where(*_preference(user_id))
    return (await session.execute(query)).scalar_one_or_none() is not False


async def set_reminder_emails(session: AsyncSession, *, user_id: UUID, enabled: bool) -> None:
    """Turn reminder e-mails on or off."""
    row = {"user_id": user_id, "type": REMINDER, "channel": Channel.EMAIL.value, "enabled": enabled}
    await upsert(session, NotificationPreference, [row], change=["enabled"])


def _preference(user_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        NotificationPreference.user_id == user_id,
        NotificationPreference.type == REMINDER,
        NotificationPreference.channel == Channel.EMAIL.value,
    )
