"""Where one is signed in."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts import sessions
from scheduler.accounts.client import Client
from web.responses import hash_of, no_content, page, require_match, write_json
from web.routing import RouteTable
from web.schemas.sessions import Session, SessionList, SessionQuery

route = RouteTable("Auth")


def session_answer(row: Any, actor: Actor) -> Session:
    """A session, as its owner sees it."""
    return {
        "id": row.id,
        "created_at": row.created_at,
        "last_used_at": row.last_used_at,
        "ip": row.ip,
        "user_agent": row.user_agent,
        "current": row.id == actor.session_id,
    }


@route(
    "GET",
    "/auth/sessions",
    summary="Where I am signed in",
    answers={200: SessionList},
    success_headers={"Link": "The next page"},
)
async def list_sessions(
    request: web.Request, session: AsyncSession, actor: Actor, query: SessionQuery, now: datetime
) -> web.Response:
    """The newest sign-in first. A session ends 30 days after its last use."""
    found = await sessions.list_sessions(
        session, actor=actor, now=now, limit=query.limit, cursor=query.cursor, count=query.count
    )
    return page(request, [session_answer(row, actor) for row in found.items], found.next_cursor, total=found.total)


@route(
    "DELETE",
    "/auth/sessions/{session_id}",
    summary="Sign out somewhere",
    answers={204: None},
    open_to_unverified=True,
)
async def delete_session(
    request: web.Request, session: AsyncSession, actor: Actor, session_id: UUID, client: Client, now: datetime
) -> web.Response:
    """Its access token and its refresh token stop working at once; this request's own session may be ended too."""
    present = await sessions.get_session(session, actor=actor, session_id=session_id, now=now)
    require_match(request, hash_of(write_json(session_answer(present, actor))))
    await sessions.sign_out_session(session, actor=actor, session_id=session_id, client=client, now=now)
    return no_content()
