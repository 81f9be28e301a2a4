"""For administrators: everybody's accounts and tasks, and the service at a glance."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler import stats
from scheduler.access import Actor
from scheduler.accounts import administration
from scheduler.accounts.client import Client
from scheduler.database import Database
from scheduler.settings import Settings
from scheduler.tasks import read
from web.handlers.tasks import task_answer
from web.handlers.users import list_people
from web.responses import answer, no_content, page
from web.routing import RouteTable
from web.schemas.stats import Stats
from web.schemas.tasks import EverybodysTaskQuery, TaskList
from web.schemas.users import UserList, UserQuery

route = RouteTable("Admin")

LINK = {"Link": "The next page"}


def stats_answer(found: stats.Stats) -> Stats:
    """The service at a glance."""
    return {
        "queues": [{"name": each.name, "depth": each.depth, "oldest_s": each.oldest_s} for each in found.queues],
        "workers": [
            {
                "name": each.row.name,
                "started_at": each.row.started_at,
                "heartbeat_at": each.row.heartbeat_at,
                "running": list(each.running),
                "version": each.row.version,
                "queues": each.row.queues,
                "concurrency": each.row.concurrency,
            }
            for each in found.workers
        ],
        "reminders": {"pending": found.reminders_pending, "late": found.reminders_late},
        "emails": found.emails,  # type: ignore[typeddict-item]
        "database_ms": found.database_ms,
        "redis_ms": found.redis_ms,
    }


@route(
    "GET", "/admin/users", summary="People", answers={200: UserList}, auth="admin", success_headers=LINK, scope="admin"
)
async def list_all_users(request: web.Request, session: AsyncSession, query: UserQuery) -> web.Response:
    """As `GET /users`."""
    return await list_people(request, session, query)


@route(
    "POST",
    "/admin/users/{user_id}/sessions/revoke",
    summary="Sign a person out everywhere",
    answers={204: None},
    auth="admin",
    scope="admin",
)
async def revoke_sessions(
    session: AsyncSession, actor: Actor, user_id: UUID, client: Client, settings: Settings, now: datetime
) -> web.Response:
    """Access and refresh tokens of all their sessions stop working at once; the person is told by e-mail."""
    await administration.end_all_sessions(
        session, actor=actor, user_id=user_id, client=client, settings=settings, now=now
    )
    return no_content()


@route(
    "GET",
    "/admin/tasks",
    summary="Everybody's tasks",
    answers={200: TaskList},
    auth="admin",
    success_headers=LINK,
    scope="admin",
)
async def list_all_tasks(
    request: web.Request, session: AsyncSession, actor: Actor, query: EverybodysTaskQuery
) -> web.Response:
    """Soonest due first; without a due date last."""
    found = await read.list_tasks(
        session,
        actor=actor,
        everybodys=True,
        statuses=query.status,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [task_answer(details) for details in found.items], found.next_cursor, total=found.total)


@route("GET", "/admin/stats", summary="The service at a glance", answers={200: Stats}, auth="admin", scope="admin")
async def get_stats(database: Database, redis: Redis | None, now: datetime) -> web.Response:
    """What waits in the queues, who is at work, and how quickly database and Redis answer."""
    return answer(stats_answer(await stats.read_stats(database, redis=redis, now=now)))
