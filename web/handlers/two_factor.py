"""Two-factor sign-in, turned on and off."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts import two_factor
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.settings import Settings
from web.responses import answer, no_content
from web.routing import RouteTable
from web.schemas.auth import OneTimeCode, RecoveryCodes, TwoFactorEnrolment, TwoFactorRemoval

route = RouteTable("Auth")


def enrolment_answer(enrolment: two_factor.Enrolment) -> TwoFactorEnrolment:
    """What an authenticator is set up with."""
    return {
        "secret": enrolment.secret,
        "otpauth_uri": enrolment.otpauth_uri,
        "qr_svg": enrolment.qr_svg,
    }


@route(
    "POST",
    "/auth/enable-2fa",
    summary="Begin to turn two-factor sign-in on",
    answers={200: TwoFactorEnrolment},
    errors=("already_enabled",),
    password=True,
)
async def enable_2fa(session: AsyncSession, actor: Actor, encryption: Encryption) -> web.Response:
    """Gives a new secret for an authenticator (TOTP, RFC 6238). Nothing changes before a first code is confirmed."""
    return answer(enrolment_answer(await two_factor.enable_two_factor(session, actor=actor, encryption=encryption)))


@route(
    "POST",
    "/auth/confirm-2fa",
    summary="Turn two-factor sign-in on",
    answers={200: RecoveryCodes},
    errors=("already_enabled", "not_started", "bad_otp"),
    password=True,
)
async def confirm_2fa(
    session: AsyncSession,
    actor: Actor,
    body: OneTimeCode,
    client: Client,
    encryption: Encryption,
    settings: Settings,
    now: datetime,
) -> web.Response:
    """From now on signing in takes a code. Keep the recovery codes: each works once when the authenticator is lost."""
    codes = await two_factor.confirm_two_factor(
        session, actor=actor, otp=body.otp, client=client, encryption=encryption, settings=settings, now=now
    )
    shown: RecoveryCodes = {"recovery_codes": codes}
    return answer(shown)


@route(
    "POST",
    "/auth/disable-2fa",
    summary="Turn two-factor sign-in off",
    answers={204: None},
    errors=("bad_password", "bad_otp", "already_disabled"),
    password=True,
)
async def disable_2fa(
    actor: Actor,
    body: TwoFactorRemoval,
    database: Database,
    client: Client,
    passwords: Passwords,
    encryption: Encryption,
    settings: Settings,
    now: datetime,
) -> web.Response:
    """Takes the password and a code; the recovery codes stop working, too."""
    await two_factor.disable_two_factor(
        database,
        actor=actor,
        password=body.password,
        otp=body.otp,
        client=client,
        passwords=passwords,
        encryption=encryption,
        settings=settings,
        now=now,
    )
    return no_content()
