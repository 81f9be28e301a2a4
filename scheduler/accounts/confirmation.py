"""The password given once more, by somebody who is signed in, before something serious is done (OWASP ASVS 5.0, 7.5.1):
whoever holds a stolen session can't do it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from scheduler.accounts.login_lock import add_failure, confirmation_digest, is_locked
from scheduler.accounts.passwords import Passwords
from scheduler.database import AFTER_COMMIT, Database
from scheduler.errors import Forbidden
from scheduler.logs import get_logger

log = get_logger("security")


async def confirm_password(
    database: Database, *, user_id: UUID, password: str, passwords: Passwords, now: datetime
) -> str:
    """Check the password of whoever is signed in, and return its hash as it is stored: what is then done compares it
    again, inside its transaction, as the password may be changed meanwhile.

    Raises `Forbidden` (`bad_password`), also while too many were wrong (`scheduler.accounts.login_lock`): that is
    counted apart from logins, so that a stolen session neither guesses for long nor keeps its owner out.
    """
    async with database.read() as session:
        stored = (await session.execute(select(User.password_hash).where(User.id == user_id))).scalar_one()
    digest = confirmation_digest(user_id)
    if await passwords.matches(stored, password) and stored is not None:
        # Only now: of many guesses at once, those that end after the tenth wrong one come too late.
        async with database.read() as session:
            if not await is_locked(session, digest=digest, now=now):
                return stored
    await database.retry_write(lambda session: refuse(session, user_id=user_id, reason="password", now=now))
    raise wrong_password()


def wrong_password() -> Forbidden:
    """What is raised for a confirming password that is wrong, and no less for one that was right until just now."""
    return Forbidden("The password is wrong; give the one that you sign in with.", code="bad_password")


async def refuse(session: AsyncSession, *, user_id: UUID, reason: str, now: datetime) -> None:
    """Count a wrong password or code of somebody who is signed in."""
    digest = confirmation_digest(user_id)
    locked = await is_locked(session, digest=digest, now=now)
    await add_failure(session, digest=digest, locked=locked, now=now)
    refused = {"user_id": str(user_id), "reason": reason, "locked": locked}
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.warning("security.confirmation_failed", **refused))
