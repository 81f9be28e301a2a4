"""Is the process alive, and can it serve?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from aiohttp import web

from scheduler import schema
from scheduler.database import Database, ping
from scheduler.logs import get_logger
from web.keys import REDIS, SCHEMA_HEAD
from web.patience import within
from web.responses import answer
from web.routing import RouteTable
from web.schemas.health import Health, Readiness

CHECK_TIMEOUT_S = 2

log = get_logger("web")

route = RouteTable("Service", "The service itself", prefix="")


@route("GET", "/healthz", summary="Is the process alive?", answers={200: Health}, auth=None)
async def get_health() -> web.Response:
    """Looks at nothing else: a process whose database is away is alive."""
    return answer({"status": "ok"})


@route("GET", "/readyz", summary="Can it serve?", answers={200: Readiness, 503: Readiness}, auth=None)
async def get_readiness(request: web.Request, database: Database) -> web.Response:
    """Asks the database and Redis, and whether the schema is the one that this version needs; two seconds at
    the most."""
    names = ("database", "redis", "schema")
    results = await asyncio.gather(
        _is_well(_ask_database(database)),
        _is_well(_ask_redis(request)),
        _is_well(_ask_schema(database, request.app[SCHEMA_HEAD])),
    )
    checks = {name: "ok" if well else "unavailable" for name, well in zip(names, results, strict=True)}
    if all(results):
        return answer({"status": "ok", "checks": checks})
    return answer({"status": "unavailable", "checks": checks}, status=503, headers={"Retry-After": "5"})


async def _is_well(check: Coroutine[None, None, bool]) -> bool:
    try:
        return await within(CHECK_TIMEOUT_S, check)
    except Exception as error:  # whatever a check raises says that its part does not work
        log.warning("readiness.failed", error=type(error).__name__, reason=str(error)[:300])
        return False


async def _ask_database(database: Database) -> bool:
    async with database.engine.connect() as connection:
        await ping(connection)
    return True


async def _ask_schema(database: Database, head: str) -> bool:
    async with database.engine.connect() as connection:
        return await connection.run_sync(schema.current) == head


async def _ask_redis(request: web.Request) -> bool:
    redis = request.app[REDIS]
    return redis is not None and bool(await redis.ping())
