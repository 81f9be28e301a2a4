"""Invitations: to somebody for whom an administrator made an account, the link to a first password."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.accounts.one_time_tokens import LIFETIMES, Purpose, make_token, void_tokens
from scheduler.mail import templates
from scheduler.outbox.write import Recipient, add_email
from scheduler.settings import Settings


async def send_invitation(
    session: AsyncSession,
    *,
    user: Recipient | Row[Any],
    inviter_name: str = "",
    settings: Settings,
    now: datetime,
) -> None:
    """Put the invitation into the outbox. An earlier one works no longer; using it verifies the address
    (`password_reset.reset_password`)."""
    purpose = Purpose.INVITATION
    await void_tokens(session, user_id=user.id, purposes=(purpose,), now=now)
    token = await make_token(session, user_id=user.id, purpose=purpose, email=user.email, now=now)
    rendered = templates.invitation(
        person_name=user.name,
        inviter_name=inviter_name,
        address=user.email,
        link=f"{settings.public_url}/act/reset?token={token}",
        days=LIFETIMES[purpose].days,
    )
    await add_email(session, user=user, rendered=rendered, template="invitation", settings=settings, now=now)
