"""People: one's own account, the names of others, and for administrators everybody's accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor, Role
from scheduler.accounts import administration, deletion, users
from scheduler.accounts.avatar import version_of
from scheduler.accounts.client import Client
from scheduler.accounts.confirmation import confirm_password
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.profile import change_profile, get_profile
from scheduler.database import Database
from scheduler.settings import Settings
from web.responses import entity, hash_of, no_content, page, require_match, write_json
from web.routing import API_PREFIX, JSON, MERGE_PATCH, RouteTable
from web.schemas.accounts import Confirmation, UserCreate, UserEdit
from web.schemas.users import FoundPerson, FoundPersonList, LookupQuery, User, UserChange, UserList, UserQuery

route = RouteTable("Users", "People and one's own account")

LINK = {"Link": "The next page"}
ETAG = {"ETag": "Changes when anything in the answer does"}


def avatar_url(user: Any) -> str | None:
    """Where a person's picture is, from a row with their `id` and `avatar_key`; None where they have none. Another
    address with each picture, so that it may be kept for good."""
    if user.avatar_key is None:
        return None
    return f"{API_PREFIX}/users/{user.id}/avatar?v={version_of(user.avatar_key)}"


def user_answer(user: Any) -> User:
    """A person as they see themselves, from the account or a row with its columns."""
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "status": users.shown_status(user.status),
        "email_verified": user.email_verified_at is not None,
        "phone": user.phone,
        "phone_verified": user.phone_verified_at is not None,
        "bio": user.bio,
        "avatar_url": avatar_url(user),
        "timezone": user.timezone,
        "locale": user.locale,
        "two_factor": user.totp_enabled_at is not None,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def found_person_answer(row: Any) -> FoundPerson:
    """A person as they are found by name."""
    return {"id": row.id, "name": row.name, "avatar_url": avatar_url(row)}


# -- one's own account ---------------------------------------------------------------------------------------


@route("GET", "/users/me", summary="My account", answers={200: User}, success_headers=ETAG, scope="tasks:read")
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
    request: web.Request, session: AsyncSession, actor: Actor, body: UserChange, client: Client, now: datetime
) -> web.Response:
    """JSON Merge Patch: what is left out stays, `null` clears."""
    present = await get_profile(session, actor=actor, for_update=True)
    _check_match(request, present)
    changed = await change_profile(session, actor=actor, changes=body.given(), client=client, now=now)
    return entity(request, user_answer(changed))


@route(
    "POST",
    "/users/me/deactivate",
    summary="Deactivate my account",
    answers={204: None},
    errors=("bad_password", "last_admin"),
)
async def deactivate_me(
    actor: Actor,
    body: Confirmation,
    database: Database,
    passwords: Passwords,
    client: Client,
    settings: Settings,
    now: datetime,
) -> web.Response:
    """Nobody can sign in to it, and nothing is sent, until an administrator brings it back."""
    confirmed = await confirm_password(
        database, user_id=actor.user_id, password=body.password, passwords=passwords, now=now
    )

    async def work(session: AsyncSession) -> None:
        await deletion.deactivate_account(
            session, actor=actor, confirmed=confirmed, client=client, settings=settings, now=now
        )

    await database.retry_write(work)
    return no_content()


@route(
    "DELETE",
    "/users/me",
    summary="Delete my account",
    answers={202: None},
    errors=("bad_password", "last_admin"),
)
async def delete_me(
    request: web.Request,
    actor: Actor,
    body: Confirmation,
    database: Database,
    passwords: Passwords,
    client: Client,
    settings: Settings,
    now: datetime,
) -> web.Response:
    """Sessions and API tokens end at once. Signing in within 14 days takes it back; then the account is erased, with
    the tasks that nobody else takes part in. Honours `If-Match`."""
    confirmed = await confirm_password(
        database, user_id=actor.user_id, password=body.password, passwords=passwords, now=now
    )

    async def work(session: AsyncSession) -> None:
        _check_match(request, await users.hold(session, user_id=actor.user_id))
        await deletion.request_deletion(
            session, actor=actor, confirmed=confirmed, client=client, settings=settings, now=now
        )

    await database.retry_write(work)
    return no_content(202)


# -- others --------------------------------------------------------------------------------------------------


@route(
    "GET",
    "/users/lookup",
    summary="Find people by name",
    answers={200: FoundPersonList},
    success_headers=LINK,
    scope="tasks:read",
)
async def look_up_people(request: web.Request, session: AsyncSession, query: LookupQuery) -> web.Response:
    """For assigning and sharing: everybody who is active, by name, and no more of them than that."""
    found = await users.look_up(session, q=query.q, limit=query.limit, cursor=query.cursor, count=query.count)
    return page(request, [found_person_answer(row) for row in found.items], found.next_cursor, total=found.total)


# -- for administrators --------------------------------------------------------------------------------------


@route(
    "GET",
    "/users",
    summary="People",
    answers={200: UserList},
    auth="admin",
    success_headers=LINK,
    scope="admin",
)
async def list_users(request: web.Request, session: AsyncSession, query: UserQuery) -> web.Response:
    """Everybody with an account, newest first."""
    return await list_people(request, session, query)


async def list_people(request: web.Request, session: AsyncSession, query: UserQuery) -> web.Response:
    """The page of people that is asked for."""
    found = await users.list_users(
        session,
        q=query.q,
        roles=query.role,
        statuses=query.status,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [user_answer(row) for row in found.items], found.next_cursor, total=found.total)


@route(
    "POST",
    "/users",
    summary="Make an account for somebody",
    answers={201: User},
    errors=("email_taken",),
    auth="admin",
    success_headers={**ETAG, "Location": "Where the person is"},
)
async def create_user(
    request: web.Request,
    actor: Actor,
    body: UserCreate,
    database: Database,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    now: datetime,
) -> web.Response:
    """With a password, the person is asked to verify the address. Without one an invitation goes out, by which they
    choose it."""
    made = await administration.create_user(
        database,
        actor=actor,
        email=body.email,
        name=body.name,
        role=Role(body.role),
        timezone=body.timezone,
        password=body.password,
        client=client,
        settings=settings,
        passwords=passwords,
        now=now,
    )
    return entity(request, user_answer(made), status=201, headers={"Location": f"{API_PREFIX}/users/{made.id}"})


@route(
    "GET",
    "/users/{user_id}",
    summary="A person",
    answers={200: User},
    auth="admin",
    success_headers=ETAG,
    scope="admin",
)
async def get_user(request: web.Request, session: AsyncSession, user_id: UUID) -> web.Response:
    return entity(request, user_answer(await users.get_user(session, user_id=user_id)))


@route(
    "PATCH",
    "/users/{user_id}",
    summary="Change a person's account",
    answers={200: User},
    errors=("last_admin",),
    auth="admin",
    media_types=(JSON, MERGE_PATCH),
    success_headers=ETAG,
)
async def change_user(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    user_id: UUID,
    body: UserEdit,
    client: Client,
    settings: Settings,
    now: datetime,
) -> web.Response:
    """JSON Merge Patch: what is left out stays, `null` clears. Takes effect at once, also for those who are signed in;
    the person is told by e-mail of another role or status. Honours `If-Match`."""
    _check_match(request, await users.hold(session, user_id=user_id))
    changed = await administration.change_user(
        session,
        actor=actor,
        user_id=user_id,
        changes=body.given(),
        client=client,
        settings=settings,
        now=now,
    )
    return entity(request, user_answer(changed))


@route(
    "DELETE",
    "/users/{user_id}",
    summary="Delete a person's account",
    answers={204: None},
    errors=("last_admin",),
    auth="admin",
)
async def delete_user(
    request: web.Request, session: AsyncSession, actor: Actor, user_id: UUID, client: Client, now: datetime
) -> web.Response:
    """At once and for good. The person's tasks stay, and are unassigned; their schedules, shares and all that says who
    they were go. Honours `If-Match`."""
    _check_match(request, await users.hold(session, user_id=user_id))
    await administration.delete_user(session, actor=actor, user_id=user_id, client=client, now=now)
    return no_content()


def _check_match(request: web.Request, present: Any) -> None:
    require_match(request, hash_of(write_json(user_answer(present))))
