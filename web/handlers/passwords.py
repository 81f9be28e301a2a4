"""Passwords forgotten, reset and changed."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts import password_change, password_reset
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.settings import Settings
from web.responses import no_content
from web.routing import RouteTable
from web.schemas.passwords import ForgottenPassword, PasswordChange, PasswordReset

route = RouteTable("Auth")


@route("POST", "/auth/forgot-password", summary="Ask for a new password", answers={202: None}, auth=None, password=True)
async def forgot_password(
    session: AsyncSession, body: ForgottenPassword, encryption: Encryption, request_id: str, now: datetime
) -> web.Response:
    """Where there is an account of this address, an e-mail with a link goes there. The answer is the same where there
    is none, and takes as long."""
    await password_reset.request_password_reset(
        session, address=body.email, encryption=encryption, request_id=request_id, now=now
    )
    return no_content(202)


@route(
    "POST",
    "/auth/reset-password",
    summary="Choose a new password by the link in an e-mail",
    answers={204: None},
    errors=("invalid_token",),
    auth=None,
    password=True,
)
async def reset_password(
    body: PasswordReset,
    database: Database,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    now: datetime,
) -> web.Response:
    """The token works once, for an hour (that of an invitation for a week). All sessions end, a lock after failed
    logins is lifted, and the address, which the link has proved, counts as verified."""
    await password_reset.reset_password(
        database,
        token=body.token,
        password=body.password,
        client=client,
        passwords=passwords,
        settings=settings,
        now=now,
    )
    return no_content()


@route(
    "POST",
    "/auth/change-password",
    summary="Change my password",
    answers={204: None},
    errors=("bad_password",),
    password=True,
)
async def change_password(
    body: PasswordChange,
    actor: Actor,
    database: Database,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    now: datetime,
) -> web.Response:
    """All my other sessions end."""
    await password_change.change_password(
        database,
        actor=actor,
        current_password=body.current_password,
        password=body.password,
        client=client,
        passwords=passwords,
        settings=settings,
        now=now,
    )
    return no_content()
