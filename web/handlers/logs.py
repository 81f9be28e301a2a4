"""Records of the log, for administrators."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.logs import read
from web.responses import page
from web.routing import RouteTable
from web.schemas.logs import LogQuery, LogRecord, LogRecordList

route = RouteTable("Admin")


def log_record_answer(row: Any) -> LogRecord:
    """A record, from a row with its columns."""
    return {
        "id": row.id,
        "at": row.at,
        "level": row.level,
        "event": row.event,
        "logger": row.logger,
        "request_id": row.request_id,
        "run_id": row.run_id,
        "job": row.job,
        "user_id": row.user_id,
        "data": row.data or {},
    }


@route(
    "GET",
    "/admin/logs",
    summary="The log",
    answers={200: LogRecordList},
    auth="admin",
    success_headers={"Link": "The next page"},
    scope="admin",
)
async def list_logs(request: web.Request, session: AsyncSession, query: LogQuery) -> web.Response:
    """Records of runs and of security, and whatever was a warning or worse; newest first.

    A page looks at a bounded number of records: where little fits, it may be short, and its cursor goes on from there.
    `total`, too, is of the newest ones.
    """
    found = await read.list_logs(
        session,
        level=query.level,
        events=query.event,
        jobs=query.job,
        run_id=query.run_id,
        request_id=query.request_id,
        user_id=query.user_id,
        since=query.since,
        until=query.until,
        q=query.q,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [log_record_answer(row) for row in found.items], found.next_cursor, total=found.total)
