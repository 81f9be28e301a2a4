"""One's own data, as a ZIP."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.export import MEDIA_TYPE, ask_for_export, find_export
from scheduler.database import Database
from scheduler.runs import read
from scheduler.storage import Storage
from web.downloads import download
from web.handlers.runs import own_run_answer
from web.responses import answer
from web.routing import API_PREFIX, Bytes, RouteTable
from web.schemas.runs import Run

route = RouteTable("Users")

RETRY_AFTER_S = 2
ARCHIVE = Bytes(
    MEDIA_TYPE,
    {"ETag": "Another with each export", "Accept-Ranges": "`bytes`", "Content-Disposition": "With the file's name"},
)


@route(
    "GET",
    "/users/me/export",
    summary="All that is stored about me",
    answers={200: ARCHIVE, 202: Run, 206: ARCHIVE},
    errors=("range_not_satisfiable",),
    success_headers={"Location": "The run that makes it", "Retry-After": "Seconds"},
)
async def export_me(
    request: web.Request,
    actor: Actor,
    database: Database,
    storage: Storage,
    client: Client,
    request_id: str,
    now: datetime,
) -> web.Response:
    """Asks for it, and answers 202 with the run while it is being made; then the ZIP, which is kept for 24 hours:
    JSON, the e-mails that were sent, the picture."""
    async with database.read() as session:
        found = await find_export(session, actor=actor, now=now)
        under_way = await read.get_run(session, run_id=found.run_id) if found and not found.storage_key else None
    lost: str | None = None
    if found is not None and found.storage_key is not None and found.made_at is not None:
        lost = found.storage_key
        try:
            return await download(
                request,
                storage,
                key=found.storage_key,
                media_type=MEDIA_TYPE,
                etag=found.storage_key.rpartition("/")[2].removesuffix(".zip"),
                cache_control="no-store",
                filename=f"punctual-{found.made_at:%Y-%m-%d}.zip",
            )
        except FileNotFoundError:
            pass  # the storage was changed, say: made anew

    async def ask(session: AsyncSession) -> Row[Any]:
        run_id = await ask_for_export(session, actor=actor, lost=lost, client=client, request_id=request_id, now=now)
        return await read.get_run(session, run_id=run_id)

    row = under_way or await database.retry_write(ask)
    shown = own_run_answer(row)
    headers = {"Location": f"{API_PREFIX}/runs/{shown['id']}", "Retry-After": str(RETRY_AFTER_S)}
    return answer(shown, status=202, headers=headers)
