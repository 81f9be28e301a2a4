"""What people did."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.activity.read import list_own_activity
from web.responses import page
from web.routing import RouteTable
from web.schemas.activity import OwnActivity, OwnActivityList
from web.schemas.fields import PageQuery

route = RouteTable("Users")


def own_activity_answer(row: Any) -> OwnActivity:
    """One thing that the caller did, from a row with its columns."""
    return {
        "id": row.id,
        "at": row.at,
        "action": row.action,
        "target_type": row.target_type,
        "target_id": row.target_id,
        "ip": row.ip,
        "user_agent": row.user_agent,
        "changes": row.changes,
    }


@route(
    "GET",
    "/users/me/activity",
    summary="What I did",
    answers={200: OwnActivityList},
    success_headers={"Link": "The next page"},
)
async def list_my_activity(request: web.Request, session: AsyncSession, actor: Actor, query: PageQuery) -> web.Response:
    """Newest first: sign-ins, changes of my account and of tasks, and, of administrators, of others' accounts; from
    where, and with which program."""
    found = await list_own_activity(session, actor=actor, limit=query.limit, cursor=query.cursor, count=query.count)
    return page(request, [own_activity_answer(row) for row in found.items], found.next_cursor, total=found.total)
