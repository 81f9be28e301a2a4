"""E-mail addresses of accounts: verified, and changed."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts import verification
from scheduler.accounts.client import Client
from scheduler.accounts.email_change import request_email_change
from scheduler.accounts.passwords import Passwords
from scheduler.database import Database
from scheduler.settings import Settings
from web.responses import no_content
from web.routing import RouteTable
from web.schemas.auth import EmailVerification
from web.schemas.email_change import EmailChange

route = RouteTable("Auth")
users_route = RouteTable("Users")


@route(
    "POST",
    "/auth/verify-email",
    summary="Verify an e-mail address",
    answers={204: None},
    errors=("invalid_token", "email_taken"),
    auth=None,
)
async def verify_email(
    session: AsyncSession, body: EmailVerification, client: Client, settings: Settings, now: datetime
) -> web.Response:
    """For the address of a new account, and for a new address of an old one, which it then signs in with."""
    await verification.verify_email(session, token=body.token, client=client, settings=settings, now=now)
    return no_content()


@route(
    "POST",
    "/auth/resend-verification",
    summary="Send the verification e-mail again",
    answers={202: None},
    errors=("already_verified",),
    open_to_unverified=True,
)
async def resend_verification(session: AsyncSession, actor: Actor, settings: Settings, now: datetime) -> web.Response:
    """The links sent before go on working. After ten within an hour no more are sent."""
    await verification.resend_verification(session, actor=actor, settings=settings, now=now)
    return no_content(202)


@users_route(
    "POST",
    "/users/me/email",
    summary="Change my e-mail address",
    answers={202: None},
    errors=("bad_password",),
    open_to_unverified=True,
)
async def change_email(
    body: EmailChange,
    actor: Actor,
    database: Database,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    now: datetime,
) -> web.Response:
    """A link goes to the new address, and a word to the present one; nothing changes until the link is used. The answer
    is the same for an address that somebody else's account has: no link is sent then."""
    await request_email_change(
        database,
        actor=actor,
        address=body.email,
        password=body.password,
        client=client,
        passwords=passwords,
        settings=settings,
        now=now,
    )
    return no_content(202)
