"""Pictures of people."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from scheduler.access import Actor
from scheduler.accounts import avatar
from scheduler.accounts.client import Client
from scheduler.accounts.pictures import LARGEST_UPLOAD, MEDIA_TYPE, Pictures
from scheduler.database import Database
from scheduler.errors import NotFound, PreconditionFailed
from scheduler.storage import Storage
from web.downloads import download
from web.handlers.users import user_answer
from web.responses import entity, hash_of, no_content, require_match, write_json
from web.routing import Bytes, RouteTable, TakesFile
from web.schemas.avatar import AvatarQuery
from web.schemas.users import User
from web.uploads import Upload

route = RouteTable("Users")

ETAG = {"ETag": "Changes when anything in the answer does"}
PICTURE = Bytes(MEDIA_TYPE, {"ETag": "Another with each picture", "Accept-Ranges": "`bytes`"})
FOR_GOOD = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"


@route(
    "PUT",
    "/users/me/avatar",
    summary="Set my picture",
    answers={200: User},
    takes_file=TakesFile(maximum=LARGEST_UPLOAD, description="PNG, JPEG or WebP, by its bytes; at most 2 MiB"),
    success_headers=ETAG,
)
async def set_my_avatar(
    request: web.Request,
    actor: Actor,
    upload: Upload,
    database: Database,
    storage: Storage,
    pictures: Pictures,
    client: Client,
    now: datetime,
) -> web.Response:
    """It is made anew as WebP: at most 512 pixels a side, upright, without metadata. `If-Match` may name the picture
    or the person, as they are."""
    person = await avatar.set_avatar(
        database,
        storage,
        actor=actor,
        picture=await pictures.make(await upload.read()),
        check=lambda present: _check_match(request, present),
        client=client,
        now=now,
    )
    return entity(request, user_answer(person))


@route(
    "GET",
    "/users/me/avatar",
    summary="My picture",
    answers={200: PICTURE, 206: PICTURE},
    errors=("not_found", "range_not_satisfiable"),
    scope="tasks:read",
)
async def get_my_avatar(request: web.Request, actor: Actor, database: Database, storage: Storage) -> web.Response:
    return await _show(request, database, storage, actor.user_id)


@route("DELETE", "/users/me/avatar", summary="Remove my picture", answers={204: None}, errors=("not_found",))
async def remove_my_avatar(
    request: web.Request, actor: Actor, database: Database, storage: Storage, client: Client, now: datetime
) -> web.Response:
    """`If-Match` may name the picture or the person, as they are."""
    await avatar.remove_avatar(
        database,
        storage,
        actor=actor,
        check=lambda present: _check_match(request, present),
        client=client,
        now=now,
    )
    return no_content()


@route(
    "GET",
    "/users/{user_id}/avatar",
    summary="A person's picture",
    answers={200: PICTURE, 206: PICTURE},
    errors=("range_not_satisfiable",),
    scope="tasks:read",
)
async def get_avatar(
    request: web.Request, user_id: UUID, query: AvatarQuery, database: Database, storage: Storage
) -> web.Response:
    """At the address in `avatar_url` it never changes, so that may be kept for good."""
    return await _show(request, database, storage, user_id, query.v)


async def _show(
    request: web.Request, database: Database, storage: Storage, user_id: UUID, wanted: str | None = None
) -> web.Response:
    async with database.read() as session:
        key = await avatar.find_avatar(session, user_id=user_id)
    version = avatar.version_of(key)
    try:
        return await download(
            request,
            storage,
            key=key,
            media_type=MEDIA_TYPE,
            etag=version,
            cache_control=FOR_GOOD if wanted == version else ASK_AGAIN,
        )
    except FileNotFoundError:  # replaced just now, or lost by the storage
        raise NotFound("There is no picture of this person.") from None


def _check_match(request: web.Request, present: Any) -> None:
    try:
        require_match(request, hash_of(write_json(user_answer(present))))
    except PreconditionFailed:
        if present.avatar_key is None:
            raise
        require_match(request, avatar.version_of(present.avatar_key))
