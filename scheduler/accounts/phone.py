"""Telephone numbers: confirmed by a code that goes there by SMS.

The code is made when it is sent, out of the run's id and the secret key: so it is stored nowhere, and a second attempt
at the run sends the same one. What is stored recognises it, with the secret key alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import PhoneCode, Run, User
from models.run import RunTrigger
from models.user import AccountStatus
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.activity.record import record
from scheduler.clock import now as present
from scheduler.clock import parse_instant
from scheduler.database import AFTER_COMMIT, Database, affected
from scheduler.errors import Conflict, InvalidToken, TooMany
from scheduler.logs import get_logger
from scheduler.runs.enqueue import enqueue
from scheduler.runs.jobs import JobName
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.settings import Settings
from scheduler.sms.gateway import SmsFailed, open_gateway
from scheduler.upsert import upsert

DIGITS = 6
LIFETIME = timedelta(minutes=10)
"""From when the code is sent."""
GIVE_UP_AFTER = timedelta(hours=1)
"""A code that could not be sent for so long is not sent any more: nobody waits for it."""
MOST_TRIES = 5
"""At a code: who guesses gets it right once in 200,000 times."""
MOST_AN_HOUR = 5
"""Codes for one person: each costs the operator money."""

_USER, _CODE = User.__table__, PhoneCode.__table__

log = get_logger("security")


class CodeRequest(BaseModel):
    """Which of the person's requests for a code it is: the newest counts."""

    model_config = ConfigDict(extra="forbid")

    asked_at: str


# -- asking for a code -----------------------------------------------------------------------------------------


async def request_code(
    session: AsyncSession, *, actor: Actor, phone: str, settings: Settings, request_id: str | None, now: datetime
) -> None:
    """Have a code sent to `phone` (E.164); it takes the place of any before it.

    Raises `Conflict` (`no_sms_gateway`), `TooMany`.
    """
    if settings.sms_url is None:
        raise Conflict(
            "This service sends no text messages: its operator has set no gateway (PUNCTUAL_SMS_URL).",
            code="no_sms_gateway",
        )
    # Held, so that of several requests at once each sees those before it.
    await session.execute(select(_USER.c.id).where(_USER.c.id == actor.user_id).with_for_update())
    await _check_how_often(session, actor.user_id, now)
    row = {
        "user_id": actor.user_id,
        "phone": phone,
        "digest": None,
        "attempts": 0,
        "created_at": now,
        "expires_at": now + GIVE_UP_AFTER,
    }
    await upsert(session, PhoneCode, [row], change=[name for name in row if name != "user_id"])
    await enqueue(
        session,
        job=JobName.SEND_SMS,
        trigger=RunTrigger.EVENT,
        owner_id=actor.user_id,
        arguments=CodeRequest(asked_at=now.isoformat()).model_dump(),
        request_id=request_id,
        now=now,
    )


async def _check_how_often(session: AsyncSession, user_id: UUID, now: datetime) -> None:
    hour = timedelta(hours=1)
    query = select(func.count(), func.min(Run.queued_at)).where(
        Run.owner_id == user_id, Run.job == JobName.SEND_SMS, Run.queued_at > now - hour
    )
    count, first = (await session.execute(query)).one()
    if count >= MOST_AN_HOUR:
        raise TooMany(
            f"There were {count} codes within an hour; wait a little for the next.",
            retry_after_s=max(1, round((first + hour - now).total_seconds())),
        )


# -- sending it ------------------------------------------------------------------------------------------------


async def send_code(
    database: Database, *, run: RunningJob, settings: Settings, clock: Callable[[], datetime] = present
) -> dict[str, Any]:
    """What the job does: make the code, store what recognises it, and have it sent. Raises `JobFailed`."""
    gateway = open_gateway(settings)
    if gateway is None:
        raise JobFailed("There is no SMS gateway; set PUNCTUAL_SMS_URL.", permanent=True)
    asked_at = _asked_at(run)
    if asked_at is None or run.owner_id is None:
        raise JobFailed("It says not for whom; only a person can ask for a code.", permanent=True)
    user_id, code = run.owner_id, _code(run.id, settings.secret_keys)

    async def store(session: AsyncSession) -> str | None:
        """The number that the code goes to; None where it is not wanted any longer."""
        now = clock()
        is_active = select(_USER.c.id).where(_USER.c.id == user_id, _USER.c.status == AccountStatus.ACTIVE.value)
        stored = await session.execute(
            update(_CODE)
            .where(
                _CODE.c.user_id == user_id,
                _CODE.c.created_at == asked_at,
                _CODE.c.created_at > now - GIVE_UP_AFTER,
                is_active.exists(),
            )
            .values(digest=_digests(user_id, code, settings.secret_keys)[0], expires_at=now + LIFETIME)
        )
        if affected(stored) == 0:
            return None
        return str((await session.execute(select(_CODE.c.phone).where(_CODE.c.user_id == user_id))).scalar_one())

    phone = await database.retry_write(store)
    if phone is None:
        return {"sent": 0}
    text = f"{code} is your Punctual code. It works for {int(LIFETIME.total_seconds() // 60)} minutes."
    try:
        message_id = await gateway.send(to=phone, text=text, settings=settings)
    except SmsFailed as error:
        raise JobFailed(str(error), permanent=error.is_permanent) from None
    return {"sent": 1, "gateway_id": message_id}


def _asked_at(run: RunningJob) -> datetime | None:
    try:
        return parse_instant(str(run.arguments.get("asked_at")))
    except ValueError:
        return None


def _code(run_id: UUID, secret_keys: Sequence[str]) -> str:
    """So many digits, which only the secret key tells from others."""
    mac = hmac.digest(secret_keys[0].encode(), b"punctual phone code " + run_id.bytes, "sha256")
    return f"{int.from_bytes(mac[:8]) % 10**DIGITS:0{DIGITS}}"


def _digests(user_id: UUID, code: str, secret_keys: Sequence[str]) -> list[bytes]:
    """What recognises a code, under each key: without a key the few digits would soon be guessed."""
    words = b"punctual phone code of " + user_id.bytes + code.encode("utf-8", "replace")
    return [hmac.digest(secret.encode(), words, "sha256") for secret in secret_keys]


# -- giving it back --------------------------------------------------------------------------------------------


async def verify_phone(
    database: Database, *, actor: Actor, code: str, client: Client, settings: Settings, now: datetime
) -> None:
    """Make the number that the code was sent to the person's, verified. After five wrong codes a new one is needed.

    Raises `InvalidToken`, whose try is on record all the same.
    """

    async def attempt(session: AsyncSession) -> bool:
        user = (await session.execute(select(_USER).where(_USER.c.id == actor.user_id).with_for_update())).one()
        # The try is counted before it is looked at: of any number at once no more than five are.
        counted = await session.execute(
            update(_CODE)
            .where(
                _CODE.c.user_id == user.id,
                _CODE.c.digest.is_not(None),
                _CODE.c.attempts < MOST_TRIES,
                _CODE.c.expires_at > now,
            )
            .values(attempts=_CODE.c.attempts + 1)
        )
        if affected(counted) == 0:
            return False
        sent = (await session.execute(select(_CODE).where(_CODE.c.user_id == user.id))).one()
        given = _digests(user.id, "".join(code.split()), settings.secret_keys)
        if not any(hmac.compare_digest(each, sent.digest) for each in given):
            return False
        await session.execute(delete(_CODE).where(_CODE.c.user_id == user.id))
        await session.execute(
            update(_USER).where(_USER.c.id == user.id).values(phone=sent.phone, phone_verified_at=now, updated_at=now)
        )
        if user.phone_verified_at is not None and user.phone != sent.phone:
            await send_security_notice(
                session, user=user, event=SecurityEvent.PHONE_CHANGED, client=client, settings=settings, now=now
            )
        await record(
            session,
            actor_id=user.id,
            action="phone_verified",
            target_type="user",
            target_id=user.id,
            client=client,
            changes={"phone": [user.phone, sent.phone]},
            now=now,
        )
        told = {"user_id": str(user.id)}
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.phone_verified", **told))
        return True

    if not await database.retry_write(attempt):
        raise InvalidToken("This code is wrong or too old, or too many were wrong; ask for a new one.")
