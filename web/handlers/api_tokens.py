"""Personal API tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts import api_tokens
from scheduler.accounts.client import Client
from scheduler.settings import Settings
from web.responses import answer, hash_of, no_content, page, require_match, write_json
from web.routing import RouteTable
from web.schemas.sessions import ApiToken, ApiTokenCreate, ApiTokenList, ApiTokenQuery, NewApiToken

route = RouteTable("Auth")


def api_token_answer(row: Any) -> ApiToken:
    """A token, from a row with its columns."""
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes.split(),
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
    }


@route(
    "GET",
    "/auth/tokens",
    summary="My API tokens",
    answers={200: ApiTokenList},
    success_headers={"Link": "The next page"},
)
async def list_api_tokens(
    request: web.Request, session: AsyncSession, actor: Actor, query: ApiTokenQuery
) -> web.Response:
    """Newest first."""
    found = await api_tokens.list_tokens(
        session, actor=actor, limit=query.limit, cursor=query.cursor, count=query.count
    )
    return page(request, [api_token_answer(row) for row in found.items], found.next_cursor, total=found.total)


@route(
    "POST",
    "/auth/tokens",
    summary="Make an API token",
    answers={201: NewApiToken},
    errors=("forbidden", "too_many_tokens"),
)
async def create_api_token(
    session: AsyncSession, actor: Actor, body: ApiTokenCreate, client: Client, settings: Settings, now: datetime
) -> web.Response:
    """For a program, sent as `Authorization: Bearer`. It may do what its scopes say, as far as I may myself; signing in
    and out and changing my account take a session. I am told by e-mail that it was made."""
    made = await api_tokens.create_token(
        session,
        actor=actor,
        name=body.name,
        scopes=body.scopes,
        expires_at=body.expires_at,
        client=client,
        settings=settings,
        now=now,
    )
    shown: NewApiToken = {**api_token_answer(made.row), "token": made.token}
    return answer(shown, status=201)


@route("DELETE", "/auth/tokens/{token_id}", summary="Take an API token back", answers={204: None})
async def delete_api_token(
    request: web.Request, session: AsyncSession, actor: Actor, token_id: UUID, client: Client, now: datetime
) -> web.Response:
    """It stops working at once."""
    present = await api_tokens.get_token(session, actor=actor, token_id=token_id)
    require_match(request, hash_of(write_json(api_token_answer(present))))
    await api_tokens.delete_token(session, actor=actor, token_id=token_id, client=client, now=now)
    return no_content()
