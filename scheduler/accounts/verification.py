"""Verification of e-mail addresses: a link that works once, for a day, for the address of a new account or for a new
address of an old one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from models.user import AccountStatus
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.email_change import change_address
from scheduler.accounts.one_time_tokens import LIFETIMES, Purpose, find_token, make_token, use_token, were_enough
from scheduler.accounts.revocation import revoke
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT
from scheduler.errors import Conflict, InvalidToken
from scheduler.logs import get_logger
from scheduler.mail import templates
from scheduler.outbox.write import Recipient, add_email
from scheduler.settings import Settings

PURPOSES = (Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL)
"""What a link to /act/verify may be for."""

log = get_logger("security")


async def send_verification(
    session: AsyncSession, *, user: Recipient | Row[Any], settings: Settings, now: datetime
) -> None:
    """Put the verification e-mail for the person's present address into the outbox."""
    purpose = Purpose.VERIFY_EMAIL
    token = await make_token(session, user_id=user.id, purpose=purpose, email=user.email, now=now)
    rendered = templates.verify_email(
        person_name=user.name,
        link=f"{settings.public_url}/act/verify?token={token}",
        hours=int(LIFETIMES[purpose].total_seconds() // 3600),
    )
    await add_email(session, user=user, rendered=rendered, template="verify_email", settings=settings, now=now)


async def resend_verification(session: AsyncSession, *, actor: Actor, settings: Settings, now: datetime) -> None:
    """Send it again; the earlier links go on working, and after ten an hour no more are sent.

    Raises `Conflict` (`already_verified`).
    """
    # Locked, so that of many at once each counts those before it.
    query = select(User).where(User.id == actor.user_id).with_for_update()
    user = (await session.execute(query)).scalar_one()
    if user.email_verified_at is not None:
        raise Conflict("Your e-mail address is verified already.", code="already_verified")
    if not await were_enough(session, user_id=user.id, purpose=Purpose.VERIFY_EMAIL, now=now):
        await send_verification(session, user=user, settings=settings, now=now)


async def verify_email(
    session: AsyncSession, *, token: str, client: Client | None = None, settings: Settings, now: datetime
) -> str:
    """Mark the address that the token was sent to as verified, and return it; where it was sent to a new address, that
    becomes the person's.

    Raises `InvalidToken`, or `Conflict` (`email_taken`) where somebody else has the new address by now.
    """
    found = await find_token(session, token=token, purposes=PURPOSES, now=now)
    if found is None:
        raise InvalidToken()
    # The person before the token, in the order of everything else that changes both.
    table = User.__table__
    user = (await session.execute(select(table).where(table.c.id == found.user_id).with_for_update())).one()
    if user.status == AccountStatus.DEACTIVATED:
        raise InvalidToken()  # nothing of it changes until an administrator brings it back
    await use_token(session, token=token, purposes=PURPOSES, now=now)
    if found.purpose == Purpose.CHANGE_EMAIL:
        await change_address(session, former=user, address=found.email, client=client, settings=settings, now=now)
        return str(found.email)
    if user.email != found.email:
        raise InvalidToken()  # it was for the former address
    if user.email_verified_at is not None:
        return str(user.email)  # by another of the links
    verified = update(table).where(table.c.id == user.id).values(email_verified_at=now, updated_at=now)
    await session.execute(verified)
    revoke(session, user.id)
    await record(
        session,
        actor_id=user.id,
        action="email_verified",
        target_type="user",
        target_id=user.id,
        client=client,
        now=now,
    )
    told = {"user_id": str(user.id)}
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.email_verified", **told))
    return str(user.email)


async def address_of(session: AsyncSession, *, token: str, now: datetime) -> str:
    """The address that `verify_email` would verify by this token; changes nothing. Raises `InvalidToken`."""
    found = await find_token(session, token=token, purposes=PURPOSES, now=now)
    if found is None:
        raise InvalidToken()
    return str(found.email)
