"""Runs of jobs, for administrators."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.runs import read
from web.responses import entity, page
from web.routing import RouteTable
from web.schemas.runs import LogRecord, LogRecordList, Run, RunList, RunLogQuery, RunQuery

route = RouteTable("Admin", "For administrators: what the workers do")

LINK = {"Link": "The next page"}


def run_answer(row: Any) -> Run:
    """A run, from a row with its columns."""
    return {
        "id": row.id,
        "job": row.job,
        "trigger": row.trigger,
        "state": row.state,
        "attempt": row.attempt,
        "scheduled_for": row.scheduled_for,
        "queued_at": row.queued_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_ms": row.duration_ms,
        "worker": row.worker,
        "result": row.result or {},
        "error": row.error,
        "progress": {"done": 0, "total": 0},
        "retry_of": row.retry_of,
    }


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


@route("GET", "/admin/runs", summary="Runs", answers={200: RunList}, auth="admin", success_headers=LINK)
async def list_runs(request: web.Request, session: AsyncSession, query: RunQuery) -> web.Response:
    """Newest first."""
    found = await read.list_runs(
        session,
        jobs=query.job,
        states=query.state,
        triggers=query.trigger,
        since=query.since,
        until=query.until,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [run_answer(row) for row in found.items], found.next_cursor, total=found.total)


@route(
    "GET",
    "/admin/runs/{run_id}",
    summary="A run",
    answers={200: Run},
    auth="admin",
    success_headers={"ETag": "A hash"},
)
async def get_run(request: web.Request, session: AsyncSession, run_id: UUID) -> web.Response:
    return entity(request, run_answer(await read.get_run(session, run_id=run_id)))


@route(
    "GET",
    "/admin/runs/{run_id}/logs",
    summary="A run's records",
    answers={200: LogRecordList},
    auth="admin",
    success_headers=LINK,
)
async def list_run_logs(request: web.Request, session: AsyncSession, run_id: UUID, query: RunLogQuery) -> web.Response:
    """Newest first."""
    found = await read.list_run_logs(session, run_id=run_id, limit=query.limit, cursor=query.cursor, count=query.count)
    return page(request, [log_record_answer(row) for row in found.items], found.next_cursor, total=found.total)
