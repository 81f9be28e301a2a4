"""A new password, chosen by somebody who is signed in and knows the present one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Session, User
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.confirmation import confirm_password, wrong_password
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.accounts.one_time_tokens import Purpose, void_tokens
from scheduler.accounts.passwords import Passwords, objection
from scheduler.accounts.revocation import revoke
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT, Database
from scheduler.errors import FieldError, Invalid
from scheduler.logs import get_logger
from scheduler.settings import Settings

log = get_logger("security")


async def change_password(
    database: Database,
    *,
    actor: Actor,
    current_password: str,
    password: str,
    client: Client,
    passwords: Passwords,
    settings: Settings,
    now: datetime,
) -> None:
    """Set the new password, and sign out every other session; links to a new password work no longer.

    Raises `Forbidden` (`bad_password`), `Invalid`.
    """
    stored = await confirm_password(
        database, user_id=actor.user_id, password=current_password, passwords=passwords, now=now
    )
    async with database.read() as session:
        email = (await session.execute(select(User.email).where(User.id == actor.user_id))).scalar_one()
    if why := objection(password, email=email):
        raise Invalid(FieldError("/password", why))
    password_hash = await passwords.hash(password)

    async def change(session: AsyncSession) -> None:
        table = User.__table__
        user = (await session.execute(select(table).where(table.c.id == actor.user_id).with_for_update())).one()
        if user.password_hash != stored:  # of two changes at once, the second knows only the former password
            raise wrong_password()
        await session.execute(
            update(table).where(table.c.id == user.id).values(password_hash=password_hash, updated_at=now)
        )
        await session.execute(
            update(Session.__table__)
            .where(Session.user_id == user.id, Session.id != actor.session_id, Session.ended_at.is_(None))
            .values(ended_at=now)
        )
        # A new address that somebody else asked for in this session must not come after it either.
        purposes = (Purpose.RESET_PASSWORD, Purpose.INVITATION, Purpose.CHANGE_EMAIL)
        await void_tokens(session, user_id=user.id, purposes=purposes, now=now)
        await send_security_notice(
            session, user=user, event=SecurityEvent.PASSWORD_CHANGED, client=client, settings=settings, now=now
        )
        await record(
            session,
            actor_id=user.id,
            action="password_changed",
            target_type="user",
            target_id=user.id,
            client=client,
            now=now,
        )
        revoke(session, user.id)
        told = {"user_id": str(user.id)}
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.password_changed", **told))

    await database.retry_write(change)
