"""Two-factor sign-in: turned on and off, and the codes that it asks for (NIST SP 800-63B, 5.1.2 and 5.1.4)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import segno
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import RecoveryCode, User
from models.user import AccountStatus
from scheduler.access import Actor
from scheduler.accounts import one_time_codes
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.client import Client
from scheduler.accounts.confirmation import confirm_password, refuse, wrong_password
from scheduler.accounts.digests import token_digest
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.revocation import revoke
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT, Database, affected
from scheduler.encryption import Encryption
from scheduler.errors import Conflict, FieldError, Invalid, NotFound, PunctualError, Unauthenticated
from scheduler.logs import get_logger
from scheduler.settings import Settings

log = get_logger("security")

_USER = User.__table__
_CODE = RecoveryCode.__table__


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator is set up with: shown once, and of no use until a first code is confirmed."""

    secret: str
    otpauth_uri: str
    qr_svg: str


class SecretCount(NamedTuple):
    """How many secrets of authenticators are stored, and under which keys."""

    all: int
    outdated: int
    """Encrypted with an older key than the newest."""
    unreadable: int
    """Encrypted with a key that is not there any longer."""


# -- on and off ----------------------------------------------------------------------------------------------


async def enable_two_factor(session: AsyncSession, *, actor: Actor, encryption: Encryption) -> Enrolment:
    """Make a new secret; one made before that was never confirmed is void. Raises `Conflict` (`already_enabled`)."""
    user = await _hold(session, actor.user_id)
    _check_not_enabled(user)
    secret = one_time_codes.new_totp_secret()
    await session.execute(
        update(_USER)
        .where(_USER.c.id == user.id)
        .values(totp_secret=encryption.encrypt(secret), totp_enabled_at=None, totp_last_step=None)
    )
    uri = one_time_codes.otpauth_uri(secret, account=user.email)
    return Enrolment(secret, uri, qr_svg(uri))


async def confirm_two_factor(
    session: AsyncSession,
    *,
    actor: Actor,
    otp: str,
    client: Client,
    encryption: Encryption,
    settings: Settings,
    now: datetime,
) -> list[str]:
    """Turn it on, as the first code shows that the authenticator works, and return the recovery codes: this is the only
    time that they are there to be seen.

    Raises `Conflict` (`already_enabled`, `not_started`) or `Unauthenticated` (`bad_otp`).
    """
    user = await _hold(session, actor.user_id)
    _check_not_enabled(user)
    if user.totp_secret is None:
        raise Conflict("Ask for a secret first, at /auth/enable-2fa.", code="not_started")
    if not await _use_totp(session, user, one_time_codes.normalise_code(otp), encryption=encryption, now=now):
        raise wrong_code()
    await session.execute(update(_USER).where(_USER.c.id == user.id).values(totp_enabled_at=now, updated_at=now))
    codes = await _renew_recovery_codes(session, user.id)
    revoke(session, user.id)
    await _tell(session, user, SecurityEvent.TWO_FACTOR_ENABLED, client=client, settings=settings, now=now)
    return codes


async def disable_two_factor(
    database: Database,
    *,
    actor: Actor,
    password: str,
    otp: str,
    client: Client,
    passwords: Passwords,
    encryption: Encryption,
    settings: Settings,
    now: datetime,
) -> None:
    """Turn it off; the recovery codes go with it.

    Raises `Forbidden` (`bad_password`), `Conflict` (`already_disabled`) or `Unauthenticated` (`bad_otp`).
    """
    stored = await confirm_password(database, user_id=actor.user_id, password=password, passwords=passwords, now=now)

    async def work(session: AsyncSession) -> PunctualError | None:
        user = await _hold(session, actor.user_id)
        if user.password_hash != stored:
            return wrong_password()
        if user.totp_enabled_at is None:
            return Conflict("Two-factor sign-in is not on.", code="already_disabled")
        if not await use_code(
            session, user=user, otp=otp, client=client, encryption=encryption, settings=settings, now=now
        ):
            await refuse(session, user_id=user.id, reason="code", now=now)
            return wrong_code()
        await _turn_off(session, user, client=client, settings=settings, now=now)
        return None

    # A refusal is returned, not raised: what it counts must be committed.
    if (refusal := await database.retry_write(work)) is not None:
        raise refusal


async def disable_for(database: Database, *, email: str, settings: Settings, now: datetime) -> None:
    """Turn it off for somebody who has lost both authenticator and recovery codes (command line).

    Raises `Invalid`, `NotFound`, or `Conflict` (`already_disabled`).
    """
    try:
        address = normalise_email(email)
    except ValueError as error:
        raise Invalid(FieldError("/email", str(error))) from None

    async def work(session: AsyncSession) -> None:
        query = select(_USER).where(_USER.c.email == address, _USER.c.status != AccountStatus.ERASED.value)
        user = (await session.execute(query.with_for_update())).one_or_none()
        if user is None:
            raise NotFound(f"There is no account with the address {address}.")
        if user.totp_enabled_at is None:
            raise Conflict(f"Two-factor sign-in is not on for {address}.", code="already_disabled")
        await _turn_off(session, user, client=None, settings=settings, now=now)

    await database.retry_write(work)


# -- codes ---------------------------------------------------------------------------------------------------


async def use_code(
    session: AsyncSession,
    *,
    user: Row[Any],
    otp: str,
    client: Client,
    encryption: Encryption,
    settings: Settings,
    now: datetime,
) -> bool:
    """Use up a code of the authenticator, or a recovery code: of any number of uses at once, one succeeds.

    False for a wrong code and for a used one. `user`: all of the row, as it is in this transaction.
    """
    code = one_time_codes.normalise_code(otp)
    if one_time_codes.is_totp_shaped(code):
        return await _use_totp(session, user, code, encryption=encryption, now=now)
    recovery = one_time_codes.recovery_form(code)
    if recovery is None or not await _use_recovery_code(session, user.id, recovery, now=now):
        return False
    left = select(func.count()).where(_CODE.c.user_id == user.id, _CODE.c.used_at.is_(None))
    count = (await session.execute(left)).scalar_one()
    await _tell(
        session,
        user,
        SecurityEvent.RECOVERY_CODE_USED,
        client=client,
        settings=settings,
        now=now,
        changes={"recovery_codes_left": [count + 1, count]},
    )
    return True


def wrong_code() -> Unauthenticated:
    """What is raised for a code that is wrong, too old, or used."""
    return Unauthenticated(
        "The one-time code is wrong, too old, or was used already; wait for the next one.", code="bad_otp"
    )


def qr_svg(text: str) -> str:
    """A QR code as one SVG element with a white ground (a scanner needs it on a dark page, too)."""
    picture = io.BytesIO()
    segno.make(text, micro=False, error="m").save(
        picture, kind="svg", xmldecl=False, scale=4, light="#fff", svgclass=None, lineclass=None, nl=False
    )
    return picture.getvalue().decode()


async def _use_totp(session: AsyncSession, user: Row[Any], code: str, *, encryption: Encryption, now: datetime) -> bool:
    try:
        secret = encryption.decrypt(user.totp_secret)
    except ValueError:
        # The operator took a secret key away too early. Recovery codes still work, and so does the command line.
        log.error("security.two_factor_secret_unreadable", user_id=str(user.id))
        return False
    step = one_time_codes.matching_step(secret, code, now=now, last_step=user.totp_last_step)
    if step is None:
        return False
    values: dict[str, Any] = {"totp_last_step": step}
    if encryption.is_outdated(user.totp_secret):
        values["totp_secret"] = encryption.encrypt(secret)
    used = await session.execute(
        update(_USER)
        .where(
            _USER.c.id == user.id,
            _USER.c.totp_secret == user.totp_secret,
            _USER.c.totp_last_step.is_(None) | (_USER.c.totp_last_step < step),
        )
        .values(values)
    )
    return affected(used) == 1


async def _use_recovery_code(session: AsyncSession, user_id: UUID, code: str, *, now: datetime) -> bool:
    used = await session.execute(
        update(_CODE)
        .where(_CODE.c.user_id == user_id, _CODE.c.digest == token_digest(code), _CODE.c.used_at.is_(None))
        .values(used_at=now)
    )
    return affected(used) == 1


async def _renew_recovery_codes(session: AsyncSession, user_id: UUID) -> list[str]:
    codes = [one_time_codes.new_recovery_code() for _ in range(one_time_codes.RECOVERY_CODES)]
    plain = (one_time_codes.recovery_form(one_time_codes.normalise_code(code)) for code in codes)
    await session.execute(delete(_CODE).where(_CODE.c.user_id == user_id))
    await session.execute(
        insert(_CODE), [{"user_id": user_id, "digest": token_digest(each), "used_at": None} for each in plain if each]
    )
    return codes


async def count_secrets(session: AsyncSession, *, encryption: Encryption) -> SecretCount:
    """For operators: whether a secret key may be taken away."""
    secrets = (await session.execute(select(_USER.c.totp_secret).where(_USER.c.totp_secret.is_not(None)))).scalars()
    stored = outdated = unreadable = 0
    for secret in secrets:
        stored += 1
        if encryption.is_outdated(secret):
            try:
                encryption.decrypt(secret)
                outdated += 1
            except ValueError:
                unreadable += 1
    return SecretCount(stored, outdated, unreadable)


# -- the account ---------------------------------------------------------------------------------------------


async def _hold(session: AsyncSession, user_id: UUID) -> Row[Any]:
    """The person's row, locked: all that changes how they sign in happens one after the other."""
    return (await session.execute(select(_USER).where(_USER.c.id == user_id).with_for_update())).one()


def _check_not_enabled(user: Row[Any]) -> None:
    if user.totp_enabled_at is not None:
        raise Conflict("Two-factor sign-in is on already; turn it off first.", code="already_enabled")


async def _turn_off(
    session: AsyncSession, user: Row[Any], *, client: Client | None, settings: Settings, now: datetime
) -> None:
    await session.execute(
        update(_USER)
        .where(_USER.c.id == user.id)
        .values(totp_secret=None, totp_enabled_at=None, totp_last_step=None, updated_at=now)
    )
    await session.execute(delete(_CODE).where(_CODE.c.user_id == user.id))
    revoke(session, user.id)
    await _tell(session, user, SecurityEvent.TWO_FACTOR_DISABLED, client=client, settings=settings, now=now)


async def _tell(
    session: AsyncSession,
    user: Row[Any],
    event: SecurityEvent,
    *,
    client: Client | None,
    settings: Settings,
    now: datetime,
    changes: dict[str, list[Any]] | None = None,
) -> None:
    """In the activity log (without a client: the service's own doing), by e-mail, and in the operator's log."""
    await record(
        session,
        actor_id=user.id if client is not None else None,
        action=event.value,
        target_type="user",
        target_id=user.id,
        now=now,
        client=client,
        changes=changes,
    )
    await send_security_notice(session, user=user, event=event, client=client, settings=settings, now=now)
    told = {"user_id": str(user.id), "by": "themselves" if client is not None else "the command line"}
    # Its name is one of a few; each is written out, as events are static.
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info(_EVENTS[event], **told))


_EVENTS = {
    SecurityEvent.TWO_FACTOR_ENABLED: "security.two_factor_enabled",
    SecurityEvent.TWO_FACTOR_DISABLED: "security.two_factor_disabled",
    SecurityEvent.RECOVERY_CODE_USED: "security.recovery_code_used",
}
