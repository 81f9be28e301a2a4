"""Signing up, in and out."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts import sign_in
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.sign_up import sign_up
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.settings import Settings
from web.handlers.users import user_answer
from web.responses import answer, no_content
from web.routing import FORM, JSON, RouteTable
from web.schemas.auth import LogIn, RefreshTokenExchange, SignUp, Tokens

route = RouteTable("Auth", "Signing up, in and out")


def tokens_answer(tokens: sign_in.Tokens) -> Tokens:
    """What a sign-in gives."""
    return {
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "user": user_answer(tokens.user),
    }


@route(
    "POST",
    "/auth/signup",
    summary="Make an account",
    answers={201: Tokens},
    errors=("email_taken", "signup_closed"),
    auth=None,
    password=True,
)
async def signup(
    body: SignUp,
    database: Database,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    access_tokens: AccessTokens,
    now: datetime,
) -> web.Response:
    """Signs the person in, and sends the e-mail that verifies the address."""
    tokens = await sign_up(
        database,
        email=body.email,
        password=body.password,
        name=body.name,
        timezone=body.timezone,
        client=client,
        settings=settings,
        passwords=passwords,
        access_tokens=access_tokens,
        now=now,
    )
    return answer(tokens_answer(tokens), status=201)


@route(
    "POST",
    "/auth/login",
    summary="Sign in",
    answers={200: Tokens},
    errors=("bad_credentials", "otp_required", "bad_otp", "deactivated"),
    auth=None,
    media_types=(JSON, FORM),
    password=True,
)
async def login(
    body: LogIn,
    database: Database,
    client: Client,
    passwords: Passwords,
    access_tokens: AccessTokens,
    encryption: Encryption,
    settings: Settings,
    now: datetime,
) -> web.Response:
    """With two-factor sign-in on, `otp` is needed too: without it the answer is `otp_required`. After ten failures
    within fifteen minutes signing in by password is locked for fifteen: the answer is `bad_credentials`, whatever is
    sent. An account that was to be deleted stays when its owner signs in."""
    tokens = await sign_in.login(
        database,
        email=body.email,
        password=body.password,
        otp=body.otp,
        client=client,
        passwords=passwords,
        access_tokens=access_tokens,
        encryption=encryption,
        settings=settings,
        now=now,
    )
    return answer(tokens_answer(tokens))


@route("POST", "/auth/logout", summary="Sign out", answers={204: None}, open_to_unverified=True)
async def logout(session: AsyncSession, actor: Actor, client: Client, now: datetime) -> web.Response:
    """This session's access token and refresh token stop working at once."""
    await sign_in.sign_out(session, actor=actor, client=client, now=now)
    return no_content()


@route(
    "POST",
    "/auth/refresh-token",
    summary="Exchange a refresh token for new tokens",
    answers={200: Tokens},
    errors=("unauthenticated", "token_revoked", "deactivated"),
    auth=None,
)
async def refresh_token(
    body: RefreshTokenExchange, database: Database, access_tokens: AccessTokens, now: datetime
) -> web.Response:
    """A refresh token works once; using one a second time ends its whole session."""
    tokens = await sign_in.refresh(database, refresh_token=body.refresh_token, access_tokens=access_tokens, now=now)
    return answer(tokens_answer(tokens))
