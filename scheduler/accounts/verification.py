"""Verification of e-mail addresses: a link that works once, for a day."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import OneTimeToken, User
from scheduler.access import Actor
from scheduler.accounts.sign_in import token_digest
from scheduler.database import affected
from scheduler.errors import Conflict, InvalidToken
from scheduler.mail import templates
from scheduler.outbox.write import add_email
from scheduler.settings import Settings

PURPOSE = "verify_email"
LIFETIME = timedelta(hours=24)


async def send_verification(session: AsyncSession, *, user: User, settings: Settings, now: datetime) -> None:
    """Put the verification e-mail for the person's present address into the outbox."""
    token = secrets.token_urlsafe(32)
    await session.execute(
        insert(OneTimeToken).values(
            digest=token_digest(token),
            user_id=user.id,
            purpose=PURPOSE,
            email=user.email,
            created_at=now,
            expires_at=now + LIFETIME,
        )
    )
    rendered = templates.verify_email(
        person_name=user.name,
        link=f"{settings.public_url}/act/verify?token={token}",
        hours=int(LIFETIME.total_seconds() // 3600),
    )
    await add_email(session, user=user, rendered=rendered, template="verify_email", settings=settings, now=now)


async def resend_verification(session: AsyncSession, *, actor: Actor, settings: Settings, now: datetime) -> None:
    """Send it again. Raises `Conflict` (`already_verified`)."""
    user = (await session.execute(select(User).where(User.id == actor.user_id))).scalar_one()
    if user.email_verified_at is not None:
        raise Conflict("Your e-mail address is verified already.", code="already_verified")
    await send_verification(session, user=user, settings=settings, now=now)


async def verify_email(session: AsyncSession, *, token: str, now: datetime) -> None:
    """Mark the address that the token was sent to as verified. Raises `InvalidToken`."""
    digest = token_digest(token)
    row = (
        await session.execute(
            select(OneTimeToken).where(OneTimeToken.digest == digest, OneTimeToken.purpose == PURPOSE)
        )
    ).scalar_one_or_none()
    if row is None or row.used_at is not None or row.expires_at <= now:
        raise InvalidToken()
    used = await session.execute(
        update(OneTimeToken).where(OneTimeToken.digest == digest, OneTimeToken.used_at.is_(None)).values(used_at=now)
    )
    if affected(used) != 1:
        raise InvalidToken()
    await session.execute(
        update(User)
        .where(User.id == row.user_id, User.email == row.email, User.email_verified_at.is_(None))
        .values(email_verified_at=now, updated_at=now)
    )


async def is_usable(session: AsyncSession, *, token: str, now: datetime) -> bool:
    """Whether `verify_email` would take this token; changes nothing."""
    row = (
        await session.execute(
            select(OneTimeToken.used_at, OneTimeToken.expires_at).where(
                OneTimeToken.digest == token_digest(token), OneTimeToken.purpose == PURPOSE
            )
        )
    ).one_or_none()
    return row is not None and row.used_at is None and row.expires_at > now
