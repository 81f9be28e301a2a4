"""The application: its parts under typed keys, its middlewares in order, its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any

import orjson
from aiohttp import web
from redis.asyncio import Redis

from scheduler import schema
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.authentication import Authentication
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.pictures import Pictures
from scheduler.accounts.revocation import Revocations
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.links import Links
from scheduler.logs import store_records
from scheduler.metrics.counters import store_metrics
from scheduler.metrics.process import ProcessMetrics
from scheduler.rate_limits.rule import Limits, parse
from scheduler.rate_limits.shared import RateLimits
from scheduler.redis_client import redis_client
from scheduler.runs.wake import wake_workers
from scheduler.settings import Settings
from scheduler.storage import Storage
from web.handlers import ROUTE_TABLES, act, documentation
from web.keys import (
    ACCESS_TOKENS,
    AUTHENTICATION,
    DATABASE,
    DOCUMENT,
    ENCRYPTION,
    LIMITS,
    LINKS,
    PASSWORDS,
    PICTURES,
    PROCESS_METRICS,
    RATE_LIMITS,
    REDIS,
    SCHEMA_HEAD,
    SETTINGS,
    STORAGE,
)
from web.middlewares.authentication import authentication
from web.middlewares.cors import cors
from web.middlewares.errors import errors
from web.middlewares.idempotency import idempotency, kept_answer
from web.middlewares.rate_limit import add_rate_limit_headers, rate_limit
from web.middlewares.request_id import request_id
from web.middlewares.security_headers import security_headers
from web.middlewares.transaction import transaction
from web.middlewares.validation import validation
from web.openapi import make_document
from web.parsing import MAXIMUM_BODY
from web.routing import add_routes

REDIS_TIMEOUT_S = 2
LAST_WORD_S = 1
"""For words of revocation that are still under way when the process ends."""
MOST_WAKING = 50
"""Words to the workers under way at once: while Redis hangs each takes half a second, and any one of them will do."""


@lru_cache(maxsize=1)
def openapi_document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of all routes. It needs no settings, no database and no running server."""
    return make_document(ROUTE_TABLES)


def make_app(settings: Settings, database: Database | None = None, redis: Redis | None = None) -> web.Application:
    """An application for these settings. A database or a Redis client that is handed in stays the caller's
    to close."""
    app = web.Application(
        # A request passes these from the first to the last.
        middlewares=[
            request_id,
            security_headers,
            cors,
            errors,
            rate_limit,
            authentication,
            idempotency,
            validation,
            transaction,
            kept_answer,
        ],
        client_max_size=MAXIMUM_BODY,
    )
    app[SETTINGS] = settings
    app[ACCESS_TOKENS] = AccessTokens(settings.secret_keys)
    app[ENCRYPTION] = Encryption(settings.secret_keys)
    app[LIMITS] = Limits(user=parse(settings.rate_limit_user), password=parse(settings.rate_limit_password))
    app.on_response_prepare.append(add_rate_limit_headers)
    app[LINKS] = Links(settings.secret_keys, public_url=settings.public_url)
    app[DOCUMENT] = orjson.dumps(openapi_document())
    if database is not None:
        app[DATABASE] = database
    else:
        app.cleanup_ctx.append(_database)
    if redis is not None:
        app[REDIS] = redis
    else:
        app.cleanup_ctx.append(_redis)
    app.cleanup_ctx.append(_admitting)
    app.cleanup_ctx.append(_measuring)
    app.cleanup_ctx.append(_storing_records)
    app.cleanup_ctx.append(_waking)
    app.cleanup_ctx.append(_passwords)
    app.cleanup_ctx.append(_pictures)
    app.cleanup_ctx.append(_storage)
    app.cleanup_ctx.append(_schema_head)
    for table in ROUTE_TABLES:
        add_routes(app, table.routes)
    documentation.add_assets(app)
    act.add_assets(app)
    return app


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have `work` done meanwhile, and end it then."""
    task = asyncio.create_task(work)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _database(app: web.Application) -> AsyncIterator[None]:
    database = app[DATABASE] = Database(app[SETTINGS].database_url)
    yield
    await database.dispose()


async def _redis(app: web.Application) -> AsyncIterator[None]:
    url = app[SETTINGS].redis_url
    # None while nobody has named one: /readyz then says so.
    client = app[REDIS] = redis_client(url, timeout_s=REDIS_TIMEOUT_S) if url else None
    yield
    if client is not None:
        await client.aclose()


async def _admitting(app: web.Application) -> AsyncIterator[None]:
    """Who is let in, and how often; and the word to all web processes when that is to change."""
    database = app[DATABASE]
    app[RATE_LIMITS] = RateLimits(app[REDIS])
    authentication = app[AUTHENTICATION] = Authentication(app[ACCESS_TOKENS], database)
    revocations = Revocations(app[REDIS], lost=authentication.forget)
    told_before, database.tell_revoked = database.tell_revoked, revocations.tell
    yield
    database.tell_revoked = told_before
    await authentication.close()
    with suppress(TimeoutError):  # what is not out after that is void before another process could be asked
        async with asyncio.timeout(LAST_WORD_S):
            await revocations.finished()


async def _measuring(app: web.Application) -> AsyncIterator[None]:
    """The numbers of this process."""
    metrics = app[PROCESS_METRICS] = ProcessMetrics(app[DATABASE])
    async with _beside(metrics.lag.watch()):
        yield


async def _storing_records(app: web.Application) -> AsyncIterator[None]:
    """What is to be found later of what this process logs and counts goes to the database, beside its work."""
    async with _beside(store_records(app[DATABASE])), _beside(store_metrics(app[DATABASE])):
        yield


async def _waking(app: web.Application) -> AsyncIterator[None]:
    """Whatever is committed here and leaves runs to dispatch wakes the workers, without being waited for."""
    database, redis = app[DATABASE], app[REDIS]
    under_way: set[asyncio.Task[None]] = set()

    def wake() -> None:
        if len(under_way) < MOST_WAKING:
            task = asyncio.create_task(wake_workers(redis))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    database.wake_workers = wake
    yield
    database.wake_workers = None
    for task in under_way:
        task.cancel()


async def _passwords(app: web.Application) -> AsyncIterator[None]:
    passwords = app[PASSWORDS] = Passwords()
    yield
    passwords.close()


async def _pictures(app: web.Application) -> AsyncIterator[None]:
    pictures = app[PICTURES] = Pictures()
    yield
    pictures.close()


async def _storage(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    storage = app[STORAGE] = Storage(settings.storage_url, settings.data_dir)
    yield
    storage.close()


async def _schema_head(app: web.Application) -> AsyncIterator[None]:
    # Read once: it is in the program's files, and Alembic reads them all.
    app[SCHEMA_HEAD] = await asyncio.to_thread(schema.head)
    yield
