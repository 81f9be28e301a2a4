"""Jobs that the workers know, for administrators: look, change when they run, run one now."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.runs import control, overview
from scheduler.schedules import system
from web.handlers.runs import run_accepted, run_answer
from web.responses import changeable_etag, entity, page, require_match
from web.routing import JSON, MERGE_PATCH, RouteTable
from web.schemas.jobs import Job, JobChange, JobList, JobQuery, JobRun
from web.schemas.runs import Run

route = RouteTable("Admin")

ETAG = {"ETag": "For `If-Match` it counts only whether `cron` and `enabled` are as they were"}


def job_answer(details: overview.JobDetails) -> Job:
    """A job with all that hangs on it."""
    job, schedule, statistics = details.job, details.schedule, details.statistics
    return {
        "name": job.name,
        "description": job.description,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "enabled": schedule.enabled,
        "next_run_at": schedule.next_run_at,
        "last_run": run_answer(details.last_run) if details.last_run is not None else None,
        "stats": {
            "runs_24h": statistics.runs,
            "failures_24h": statistics.failures,
            "p50_ms": statistics.p50_ms,
            "p99_ms": statistics.p99_ms,
        },
        "queue": job.queue,
        "timeout_s": job.timeout_s,
        "attempts": job.attempts,
        "args_schema": job.arguments.model_json_schema(),
    }


def _etag(shown: Job) -> str:
    return changeable_etag(shown, [shown["cron"], shown["timezone"], shown["enabled"]])


@route(
    "GET",
    "/admin/jobs",
    summary="Jobs",
    answers={200: JobList},
    auth="admin",
    success_headers={"Link": "The next page"},
    scope="admin",
)
async def list_jobs(request: web.Request, session: AsyncSession, query: JobQuery, now: datetime) -> web.Response:
    """Every job that the workers know, by name."""
    found = await overview.list_jobs(session, now=now, limit=query.limit, cursor=query.cursor, count=query.count)
    return page(request, [job_answer(details) for details in found.items], found.next_cursor, total=found.total)


@route(
    "GET", "/admin/jobs/{name}", summary="A job", answers={200: Job}, auth="admin", success_headers=ETAG, scope="admin"
)
async def get_job(request: web.Request, session: AsyncSession, name: str, now: datetime) -> web.Response:
    shown = job_answer(await overview.get_job(session, name=name, now=now))
    return entity(request, shown, etag=_etag(shown))


@route(
    "PATCH",
    "/admin/jobs/{name}",
    summary="Change when a job runs by itself",
    answers={200: Job},
    auth="admin",
    media_types=(JSON, MERGE_PATCH),
    success_headers=ETAG,
    scope="admin",
)
async def change_job(
    request: web.Request, session: AsyncSession, name: str, body: JobChange, now: datetime
) -> web.Response:
    """Every worker knows within a second. Honours `If-Match`. What a disabled job missed is not made up for."""
    present = job_answer(await overview.get_job(session, name=name, now=now, for_update=True))
    require_match(request, _etag(present))
    await system.change_job(session, name=name, changes=body.given(), now=now)
    shown = job_answer(await overview.get_job(session, name=name, now=now))
    return entity(request, shown, etag=_etag(shown))


@route(
    "POST",
    "/admin/jobs/{name}/run",
    summary="Run a job now",
    answers={202: Run},
    auth="admin",
    success_headers={"Location": "Where the run is"},
    scope="admin",
)
async def run_job(
    session: AsyncSession, name: str, body: JobRun | None, now: datetime, request_id: str
) -> web.Response:
    """Also one that is disabled. The body may be left out. While a run of a job that is declared unique has not
    finished, that one is answered."""
    arguments = body.args if body is not None else None
    run_id = await control.run_now(session, name=name, arguments=arguments, now=now, request_id=request_id)
    return await run_accepted(session, run_id)
