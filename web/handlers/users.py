"""People: one's own account."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts.profile import change_profile, get_profile
from web.responses import entity, hash_of, require_match, write_json
from web.routing import JSON, MERGE_PATCH, RouteTable
from web.schemas.users import User, UserChange

route = RouteTable("Users", "People and one's own account")

ETAG = {"ETag": "Changes when anything in the answer does"}


def user_answer(user: Any) -> User:
    """A person as they see themselves, from the account or a row with its columns."""
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "status": user.status,
        "email_verified": user.email_verified_at is not None,
        "phone": user.phone,
        "phone_verified": user.phone_verified_at is not None,
        "bio": user.bio,
        "avatar_url": None,
        "timezone": user.timezone,
        "locale": user.locale,
        "two_factor": False,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


@route("GET", "/users/me", summary="My account", answers={200: User}, success_headers=ETAG)
async def get_me(request: web.Request, session: AsyncSession, actor: Actor) -> web.Response:
    return entity(request, user_answer(await get_profile(session, actor=actor)))


@route(
    "PATCH",
    "/users/me",
    summary="Change my account",
    answers={200: User},
    media_types=(JSON, MERGE_PATCH),
    success_headers=ETAG,
)
async def change_me(
    request: web.Request, session: AsyncSession, actor: Actor, body: UserChange, now: datetime
) -> web.Response:
    """JSON Merge Patch: what is left out stays, `null` clears."""
    present = user_answer(await get_profile(session, actor=actor, for_update=True))
    require_match(request, hash_of(write_json(present)))
    return entity(request, user_answer(await change_profile(session, actor=actor, changes=body.given(), now=now)))
