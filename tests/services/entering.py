"""Coming in with a token, as a web process that remembers nothing has it."""

from __future__ import annotations

from datetime import datetime

from scheduler.access import Actor
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.authentication import Authentication
from scheduler.database import Database


async def enter(database: Database, token: str, *, access_tokens: AccessTokens, now: datetime) -> Actor:
    """Who the tables say this is. Raises `Unauthenticated` or `Forbidden`."""
    authentication = Authentication(access_tokens, database)
    caller = await authentication.recognise(token, now=now)
    return await authentication.authenticate(caller, epoch=None, now=now)
