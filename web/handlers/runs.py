"""Runs of jobs: those that one caused, and for administrators all of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.logs.read import list_logs
from scheduler.runs import control, read
from web.handlers.logs import log_record_answer
from web.responses import answer, entity, page
from web.routing import API_PREFIX, RouteTable
from web.schemas.logs import LogRecordList, RunLogQuery
from web.schemas.runs import Run, RunAttempt, RunDetails, RunList, RunQuery

route = RouteTable("Runs", "What the workers did for me")
admin_route = RouteTable("Admin", "For administrators: the workers, what they do, and everybody's things")

LINK = {"Link": "The next page"}
ETAG = {"ETag": "Changes when anything in the answer does"}
LOCATION = {"Location": "Where the run is"}


def run_answer(row: Any) -> Run:
    """A run as administrators see it, from a row with its columns."""
    return {
        "id": row.id,
        "job": row.job,
        "trigger": row.trigger,
        "state": read.public_state(row.state),  # type: ignore[typeddict-item]
        "attempt": row.attempt,
        "max_attempts": row.max_attempts,
        "scheduled_for": row.scheduled_for,
        "queued_at": row.queued_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_ms": row.duration_ms,
        "worker": row.worker,
        "result": row.result or {},
        "error": row.error,
        "progress": {"done": row.progress_done, "total": row.progress_total},
        "retry_of": row.retry_of,
        "queue": row.queue,
        "owner_id": row.owner_id,
        "schedule_id": row.schedule_id,
        "request_id": row.request_id,
    }


def own_run_answer(row: Any) -> Run:
    """A run as the person sees it who caused it: without what only tells of our insides."""
    shown = run_answer(row)
    if shown["error"] is not None:
        shown["error"] = {**shown["error"], "traceback": None}
    return {**shown, "worker": None}


def attempt_answer(attempt: read.Attempt) -> RunAttempt:
    """One attempt at a run."""
    return attempt._asdict()  # type: ignore[return-value]


async def _page(
    request: web.Request, session: AsyncSession, query: RunQuery, owner: Actor | None = None
) -> web.Response:
    found = await read.list_runs(
        session,
        owner_id=owner.user_id if owner else None,
        jobs=query.job,
        states=query.state,
        triggers=query.trigger,
        since=query.since,
        until=query.until,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    shown = own_run_answer if owner else run_answer
    return page(request, [shown(row) for row in found.items], found.next_cursor, total=found.total)


# -- mine ----------------------------------------------------------------------------------------------------


@route("GET", "/runs", summary="My runs", answers={200: RunList}, success_headers=LINK, scope="tasks:write")
async def list_my_runs(request: web.Request, session: AsyncSession, actor: Actor, query: RunQuery) -> web.Response:
    """Those that I caused, newest first: by my schedules, or by asking for them."""
    return await _page(request, session, query, actor)


@route("GET", "/runs/{run_id}", summary="A run of mine", answers={200: Run}, success_headers=ETAG, scope="tasks:write")
async def get_my_run(request: web.Request, session: AsyncSession, actor: Actor, run_id: UUID) -> web.Response:
    return entity(request, own_run_answer(await read.get_run(session, run_id=run_id, owner_id=actor.user_id)))


@route(
    "POST",
    "/runs/{run_id}/cancel",
    summary="Cancel a run of mine",
    answers={202: Run},
    errors=("already_finished",),
    scope="tasks:write",
)
async def cancel_my_run(session: AsyncSession, actor: Actor, run_id: UUID, now: datetime) -> web.Response:
    """One that is running ends within two seconds."""
    await read.get_run(session, run_id=run_id, owner_id=actor.user_id)
    await control.cancel(session, run_id=run_id, now=now)
    return answer(own_run_answer(await read.get_run(session, run_id=run_id)), status=202)


# -- everybody's ---------------------------------------------------------------------------------------------


@admin_route(
    "GET", "/admin/runs", summary="Runs", answers={200: RunList}, auth="admin", success_headers=LINK, scope="admin"
)
async def list_runs(request: web.Request, session: AsyncSession, query: RunQuery) -> web.Response:
    """Newest first."""
    return await _page(request, session, query)


@admin_route(
    "GET",
    "/admin/runs/{run_id}",
    summary="A run",
    answers={200: RunDetails},
    auth="admin",
    success_headers=ETAG,
    scope="admin",
)
async def get_run(request: web.Request, session: AsyncSession, run_id: UUID) -> web.Response:
    """With each attempt at it."""
    row = await read.get_run(session, run_id=run_id)
    attempts = await read.list_attempts(session, run=row)
    details: RunDetails = {**run_answer(row), "attempts": [attempt_answer(attempt) for attempt in attempts]}
    return entity(request, details)


@admin_route(
    "GET",
    "/admin/runs/{run_id}/logs",
    summary="A run's records",
    answers={200: LogRecordList},
    auth="admin",
    success_headers=LINK,
    scope="admin",
)
async def list_run_logs(request: web.Request, session: AsyncSession, run_id: UUID, query: RunLogQuery) -> web.Response:
    """Newest first."""
    await read.get_run(session, run_id=run_id)
    found = await list_logs(
        session,
        run_id=run_id,
        level=query.level,
        q=query.q,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [log_record_answer(row) for row in found.items], found.next_cursor, total=found.total)


@admin_route(
    "POST",
    "/admin/runs/{run_id}/retry",
    summary="Run again what a run did",
    answers={202: Run},
    errors=("not_finished", "unknown_job"),
    auth="admin",
    success_headers=LOCATION,
    scope="admin",
)
async def retry_run(session: AsyncSession, run_id: UUID, now: datetime, request_id: str) -> web.Response:
    """Answers the new run, whose `retry_of` is this one. One that has not finished can't be retried."""
    new_id = await control.retry(session, run_id=run_id, now=now, request_id=request_id)
    return await run_accepted(session, new_id)


@admin_route(
    "POST",
    "/admin/runs/{run_id}/cancel",
    summary="Cancel a run",
    answers={202: Run},
    errors=("already_finished",),
    auth="admin",
    scope="admin",
)
async def cancel_run(session: AsyncSession, run_id: UUID, now: datetime) -> web.Response:
    """One that nobody has begun is cancelled at once; one that is running ends within two seconds."""
    await control.cancel(session, run_id=run_id, now=now)
    return answer(run_answer(await read.get_run(session, run_id=run_id)), status=202)


async def run_accepted(session: AsyncSession, run_id: UUID) -> web.Response:
    """202 for a run that was asked for by an administrator."""
    row = await read.get_run(session, run_id=run_id)
    return answer(run_answer(row), status=202, headers={"Location": f"{API_PREFIX}/admin/runs/{run_id}"})
