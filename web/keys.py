"""Typed keys under which the application and a request keep their parts."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.passwords import Passwords
from scheduler.database import Database
from scheduler.links import Links
from scheduler.metrics.process import ProcessMetrics
from scheduler.settings import Settings
from web.client_address import Remote

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
DATABASE: web.AppKey[Database] = web.AppKey("database", Database)
REDIS: web.AppKey[Redis | None] = web.AppKey("redis")
PASSWORDS: web.AppKey[Passwords] = web.AppKey("passwords", Passwords)
LINKS: web.AppKey[Links] = web.AppKey("links", Links)
ACCESS_TOKENS: web.AppKey[AccessTokens] = web.AppKey("access_tokens", AccessTokens)
SCHEMA_HEAD: web.AppKey[str] = web.AppKey("schema_head", str)
"""The revision of the schema that this version of the program needs."""
PROCESS_METRICS: web.AppKey[ProcessMetrics] = web.AppKey("process_metrics", ProcessMetrics)
DOCUMENT: web.AppKey[bytes] = web.AppKey("document", bytes)
"""The OpenAPI document, as the bytes that are sent."""

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
ACTOR: web.RequestKey[Actor] = web.RequestKey("actor", Actor)
SESSION: web.RequestKey[AsyncSession] = web.RequestKey("session", AsyncSession)
BODY: web.RequestKey[BaseModel] = web.RequestKey("body", BaseModel)
QUERY: web.RequestKey[BaseModel] = web.RequestKey("query", BaseModel)
IDS: web.RequestKey[dict[str, UUID]] = web.RequestKey("ids", dict[str, UUID])
IDEMPOTENCY_KEY: web.RequestKey[str] = web.RequestKey("idempotency_key", str)
REMOTE: web.RequestKey[Remote] = web.RequestKey("remote", Remote)
"""Who calls, and over what, once the trusted proxies are looked through."""
