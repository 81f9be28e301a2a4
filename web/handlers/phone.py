"""One's telephone number, confirmed by a code that goes there by SMS."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts import phone
from scheduler.accounts.client import Client
from scheduler.database import Database
from scheduler.settings import Settings
from web.responses import no_content
from web.routing import RouteTable
from web.schemas.phone import PhoneNumber, PhoneVerification

route = RouteTable("Users")


@route(
    "POST",
    "/users/me/phone",
    summary="Have a code sent to a telephone number",
    answers={202: None},
    errors=("no_sms_gateway", "rate_limited"),
)
async def send_phone_code(
    session: AsyncSession, actor: Actor, body: PhoneNumber, settings: Settings, request_id: str, now: datetime
) -> web.Response:
    """It works for ten minutes. The number becomes mine when the code comes back; until then nothing changes."""
    await phone.request_code(session, actor=actor, phone=body.phone, settings=settings, request_id=request_id, now=now)
    return no_content(202)


@route(
    "POST",
    "/users/me/phone/verify",
    summary="Confirm a telephone number by the code sent there",
    answers={204: None},
    errors=("invalid_token",),
)
async def verify_phone(
    body: PhoneVerification, actor: Actor, database: Database, client: Client, settings: Settings, now: datetime
) -> web.Response:
    """After five wrong codes a new one is needed."""
    await phone.verify_phone(database, actor=actor, code=body.code, client=client, settings=settings, now=now)
    return no_content()
