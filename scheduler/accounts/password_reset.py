"""A new password for somebody who can't sign in, by a link that works once, for an hour (OWASP, Forgot Password Cheat
Sheet).

Whether there is an account of an address is told to nobody: asking writes one row, the same for every address, and a
job looks for the account.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import ApiToken, Run, User
from models.run import RunTrigger
from models.user import AccountStatus
from scheduler.accounts.client import Client
from scheduler.accounts.login_lock import address_digest, forget_failures
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.accounts.one_time_tokens import (
    LIFETIMES,
    Purpose,
    find_token,
    make_token,
    use_token,
    void_tokens,
    were_enough,
)
from scheduler.accounts.passwords import Passwords, objection
from scheduler.accounts.users import end_sessions
from scheduler.activity.record import record
from scheduler.clock import now as present
from scheduler.database import AFTER_COMMIT, Database
from scheduler.encryption import Encryption
from scheduler.errors import FieldError, Invalid, InvalidToken
from scheduler.logs import get_logger
from scheduler.mail import templates
from scheduler.outbox.write import add_email
from scheduler.runs.effect import succeed_with
from scheduler.runs.enqueue import enqueue
from scheduler.runs.jobs import JobName
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.settings import Settings

PURPOSES = (Purpose.RESET_PASSWORD, Purpose.INVITATION)
"""What a link to /act/reset may be for: the first password of an account is set like any other."""
MAY_RESET = (AccountStatus.ACTIVE.value, AccountStatus.DELETING.value)
"""Whose account is to be deleted may want to sign in and keep it."""

_USER = User.__table__

log = get_logger("security")


class ResetRequest(BaseModel):
    """Whose password is forgotten."""

    model_config = ConfigDict(extra="forbid")

    sealed_address: str
    """Encrypted: what strangers type is not for those who read the runs."""


# -- asking for the link ---------------------------------------------------------------------------------------


async def request_password_reset(
    session: AsyncSession, *, address: str, encryption: Encryption, request_id: str | None, now: datetime
) -> None:
    """Have the link sent to `address` (normalised), if there is an account that it signs in to."""
    request = ResetRequest(sealed_address=encryption.encrypt(address))
    await enqueue(
        session,
        job=JobName.SEND_PASSWORD_RESET,
        trigger=RunTrigger.EVENT,
        arguments=request.model_dump(),
        request_id=request_id,
        now=now,
    )


async def send_password_reset(
    database: Database, *, run: RunningJob, settings: Settings, clock: Callable[[], datetime] = present
) -> dict[str, Any]:
    """What the job does: put the link into the outbox, in the transaction that ends the run, and forget the address.

    After ten an hour no more are sent to one person. The result says only whether there was one to send, which
    administrators may know. Raises `JobFailed`.
    """
    try:
        address = Encryption(settings.secret_keys).decrypt(str(run.arguments.get("sealed_address")))
    except ValueError:
        raise JobFailed(
            "It has no address, or one that none of the secret keys opens; ask for the link again.", permanent=True
        ) from None

    async def send(session: AsyncSession) -> dict[str, Any]:
        await session.execute(update(Run.__table__).where(Run.__table__.c.id == run.id).values(arguments=None))
        user = (await session.execute(select(_USER).where(_USER.c.email == address))).one_or_none()
        if user is None or user.status not in MAY_RESET:
            return {"sent": 0}
        now, purpose = clock(), Purpose.RESET_PASSWORD
        if await were_enough(session, user_id=user.id, purpose=purpose, now=now):
            return {"sent": 0}
        await _send_link(session, user=user, settings=settings, now=now)
        told = {"user_id": str(user.id)}
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.password_reset_requested", **told))
        return {"sent": 1}

    return await succeed_with(database, run=run, effect=send, clock=clock)


async def _send_link(session: AsyncSession, *, user: Row[Any], settings: Settings, now: datetime) -> None:
    purpose = Purpose.RESET_PASSWORD
    token = await make_token(session, user_id=user.id, purpose=purpose, email=user.email, now=now)
    rendered = templates.reset_password(
        person_name=user.name,
        link=f"{settings.public_url}/act/reset?token={token}",
        hours=int(LIFETIMES[purpose].total_seconds() // 3600),
    )
    await add_email(session, user=user, rendered=rendered, template=purpose.value, settings=settings, now=now)


# -- using it --------------------------------------------------------------------------------------------------


async def find_reset(session: AsyncSession, *, token: str, now: datetime) -> Row[Any]:
    """Whose password the token would reset (`email`) and what it is for (`purpose`); changes nothing.

    Raises `InvalidToken`, also where the account is not the one that it was any longer.
    """
    found = await find_token(session, token=token, purposes=PURPOSES, now=now)
    if found is None:
        raise InvalidToken()
    user = (await session.execute(select(_USER.c.email, _USER.c.status).where(_USER.c.id == found.user_id))).one()
    if user.email != found.email or user.status not in MAY_RESET:
        raise InvalidToken()
    return found


async def reset_password(
    database: Database,
    *,
    token: str,
    password: str,
    client: Client,
    passwords: Passwords,
    settings: Settings,
    now: datetime,
) -> None:
    """Set the password that somebody chose behind the link. All sessions end, all links of the person work no longer,
    and the address, which the link has proved, counts as verified. A lock after failed logins is lifted, as those were
    guesses at the former password; two-factor sign-in stays as it is (OWASP ASVS 5.0, 6.4.3).

    Raises `InvalidToken`, or `Invalid` for a password that is not taken: the link goes on working then.
    """
    async with database.read() as session:
        found = await find_reset(session, token=token, now=now)
    if why := objection(password, email=found.email):
        raise Invalid(FieldError("/password", why))
    password_hash = await passwords.hash(password)

    async def reset(session: AsyncSession) -> None:
        user = (await session.execute(select(_USER).where(_USER.c.id == found.user_id).with_for_update())).one()
        await find_reset(session, token=token, now=now)
        await use_token(session, token=token, purposes=PURPOSES, now=now)
        values = {"password_hash": password_hash, "updated_at": now}
        if user.email_verified_at is None:
            values["email_verified_at"] = now
            # Whoever gave this address before its owner proved it may have left a way in.
            await session.execute(delete(ApiToken.__table__).where(ApiToken.user_id == user.id))
        await session.execute(update(_USER).where(_USER.c.id == user.id).values(**values))
        await end_sessions(session, user_id=user.id, now=now)
        await void_tokens(session, user_id=user.id, now=now)
        await forget_failures(session, digest=address_digest(user.email))
        is_first = user.password_hash is None
        if not is_first:
            await send_security_notice(
                session, user=user, event=SecurityEvent.PASSWORD_RESET, client=client, settings=settings, now=now
            )
        await record(
            session,
            actor_id=user.id,
            action="password_set" if is_first else "password_reset",
            target_type="user",
            target_id=user.id,
            client=client,
            now=now,
        )
        told = {"user_id": str(user.id)}
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.password_reset", **told))

    await database.retry_write(reset)
