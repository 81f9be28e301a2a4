"""People's own schedules: when, and what they do then."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.runs.read import get_run
from scheduler.schedules import manage, read
from scheduler.settings import Settings
from web.handlers.runs import own_run_answer
from web.responses import answer, changeable_etag, entity, no_content, page, require_match
from web.routing import API_PREFIX, JSON, MERGE_PATCH, RouteTable
from web.schemas.runs import Run, RunList, ScheduleRunQuery
from web.schemas.schedules import (
    Backfill,
    Backfilled,
    Schedule,
    ScheduleChange,
    ScheduleCreate,
    ScheduleList,
    ScheduleQuery,
)

route = RouteTable("Schedules", "Cron of one's own: create a task or send an HTTP request, again and again")

LINK = {"Link": "The next page"}
ETAG = {"ETag": "For `If-Match` it counts only whether what one can change is as it was"}
_BY_ITSELF = ("next_run_at", "last_run")


def schedule_answer(details: read.ScheduleDetails) -> Schedule:
    """A schedule, as its owner sees it."""
    row = details.row
    return {
        "id": row.id,
        "name": row.name,
        "cron": row.cron,
        "timezone": row.timezone,
        "action": row.action,
        "enabled": row.enabled,
        "overlap": row.overlap,
        "missed": row.missed,
        "next_run_at": details.next_run_at,
        "last_run": own_run_answer(details.last_run) if details.last_run is not None else None,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _etag(shown: Schedule) -> str:
    return changeable_etag(shown, {key: value for key, value in shown.items() if key not in _BY_ITSELF})


async def _check_match(
    request: web.Request, session: AsyncSession, actor: Actor, schedule_id: UUID, now: datetime
) -> None:
    """Hold the schedule, and raise PreconditionFailed where If-Match names another version of it."""
    present = await read.get_schedule(session, actor=actor, schedule_id=schedule_id, now=now, for_update=True)
    require_match(request, _etag(schedule_answer(present)))


async def _answer(
    request: web.Request, session: AsyncSession, actor: Actor, schedule_id: UUID, now: datetime, status: int = 200
) -> web.Response:
    shown = schedule_answer(await read.get_schedule(session, actor=actor, schedule_id=schedule_id, now=now))
    headers = {"Location": f"{API_PREFIX}/schedules/{schedule_id}"} if status == 201 else None
    return entity(request, shown, etag=_etag(shown), status=status, headers=headers)


@route(
    "GET", "/schedules", summary="My schedules", answers={200: ScheduleList}, success_headers=LINK, scope="tasks:write"
)
async def list_schedules(
    request: web.Request, session: AsyncSession, actor: Actor, query: ScheduleQuery, now: datetime
) -> web.Response:
    """Newest first."""
    found = await read.list_schedules(
        session, actor=actor, now=now, limit=query.limit, cursor=query.cursor, count=query.count
    )
    return page(request, [schedule_answer(each) for each in found.items], found.next_cursor, total=found.total)


@route(
    "POST",
    "/schedules",
    summary="Make a schedule",
    answers={201: Schedule},
    success_headers={**ETAG, "Location": "Where the schedule is"},
    scope="tasks:write",
)
async def create_schedule(
    request: web.Request, session: AsyncSession, actor: Actor, body: ScheduleCreate, settings: Settings, now: datetime
) -> web.Response:
    """Its first firing is the next that its cron has from now."""
    schedule_id = await manage.create_schedule(session, actor=actor, values=body.given(), settings=settings, now=now)
    return await _answer(request, session, actor, schedule_id, now, 201)


@route(
    "GET",
    "/schedules/{schedule_id}",
    summary="A schedule",
    answers={200: Schedule},
    success_headers=ETAG,
    scope="tasks:write",
)
async def get_schedule(
    request: web.Request, session: AsyncSession, actor: Actor, schedule_id: UUID, now: datetime
) -> web.Response:
    return await _answer(request, session, actor, schedule_id, now)


@route(
    "PATCH",
    "/schedules/{schedule_id}",
    summary="Change a schedule",
    answers={200: Schedule},
    media_types=(JSON, MERGE_PATCH),
    success_headers=ETAG,
    scope="tasks:write",
)
async def change_schedule(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    schedule_id: UUID,
    body: ScheduleChange,
    settings: Settings,
    now: datetime,
) -> web.Response:
    """What is left out stays; an `action` given replaces the action whole. Every worker knows within a second. What was
    missed while it was paused does not run. Honours `If-Match`."""
    await _check_match(request, session, actor, schedule_id, now)
    await manage.change_schedule(
        session, actor=actor, schedule_id=schedule_id, changes=body.given(), settings=settings, now=now
    )
    return await _answer(request, session, actor, schedule_id, now)


@route("DELETE", "/schedules/{schedule_id}", summary="Delete a schedule", answers={204: None}, scope="tasks:write")
async def delete_schedule(
    request: web.Request, session: AsyncSession, actor: Actor, schedule_id: UUID, now: datetime
) -> web.Response:
    """Its runs that have not begun are cancelled; the others stay in `/runs`. Honours `If-Match`."""
    await _check_match(request, session, actor, schedule_id, now)
    await manage.delete_schedule(session, actor=actor, schedule_id=schedule_id, now=now)
    return no_content()


@route(
    "POST",
    "/schedules/{schedule_id}/run",
    summary="Do now what a schedule does",
    answers={202: Run},
    success_headers={"Location": "Where the run is"},
    scope="tasks:write",
)
async def run_schedule(
    session: AsyncSession, actor: Actor, schedule_id: UUID, now: datetime, request_id: str
) -> web.Response:
    """Also one that is paused. While its last run is under way, the new one waits for that to end."""
    run_id = await manage.trigger_schedule(
        session, actor=actor, schedule_id=schedule_id, now=now, request_id=request_id
    )
    run = await get_run(session, run_id=run_id)
    return answer(own_run_answer(run), status=202, headers={"Location": f"{API_PREFIX}/runs/{run_id}"})


@route(
    "GET",
    "/schedules/{schedule_id}/runs",
    summary="What a schedule did",
    answers={200: RunList},
    success_headers=LINK,
    scope="tasks:write",
)
async def list_schedule_runs(
    request: web.Request, session: AsyncSession, actor: Actor, schedule_id: UUID, query: ScheduleRunQuery
) -> web.Response:
    """Newest first; also the firings that were left out, as `skipped` runs that say why."""
    found = await read.list_schedule_runs(
        session,
        actor=actor,
        schedule_id=schedule_id,
        states=query.state,
        triggers=query.trigger,
        since=query.since,
        until=query.until,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [own_run_answer(row) for row in found.items], found.next_cursor, total=found.total)


@route(
    "POST",
    "/schedules/{schedule_id}/backfill",
    summary="Make up for a stretch of the past",
    answers={202: Backfilled},
    scope="tasks:write",
)
async def backfill_schedule(
    session: AsyncSession, actor: Actor, schedule_id: UUID, body: Backfill, now: datetime, request_id: str
) -> web.Response:
    """A run for each firing from `from` (inclusive) to `until` (exclusive) that has none, at most 1,000 at once; one
    after the other, in their order."""
    runs = await manage.backfill_schedule(
        session,
        actor=actor,
        schedule_id=schedule_id,
        since=body.since,
        until=body.until,
        now=now,
        request_id=request_id,
    )
    return answer({"runs": runs}, status=202)
