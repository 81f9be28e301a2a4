"""Typed keys under which the application and a request keep their parts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.authentication import Authentication, Caller
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.pictures import Pictures
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.idempotency import Claim
from scheduler.links import Links
from scheduler.metrics.process import ProcessMetrics
from scheduler.rate_limits.rule import Limits
from scheduler.rate_limits.shared import RateLimits, Taken
from scheduler.settings import Settings
from scheduler.storage import Storage
from web.client_address import Remote

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
DATABASE: web.AppKey[Database] = web.AppKey("database", Database)
REDIS: web.AppKey[Redis | None] = web.AppKey("redis")
PASSWORDS: web.AppKey[Passwords] = web.AppKey("passwords", Passwords)
ENCRYPTION: web.AppKey[Encryption] = web.AppKey("encryption", Encryption)
PICTURES: web.AppKey[Pictures] = web.AppKey("pictures", Pictures)
STORAGE: web.AppKey[Storage] = web.AppKey("storage", Storage)
LINKS: web.AppKey[Links] = web.AppKey("links", Links)
ACCESS_TOKENS: web.AppKey[AccessTokens] = web.AppKey("access_tokens", AccessTokens)
AUTHENTICATION: web.AppKey[Authentication] = web.AppKey("authentication", Authentication)
RATE_LIMITS: web.AppKey[RateLimits] = web.AppKey("rate_limits", RateLimits)
LIMITS: web.AppKey[Limits] = web.AppKey("limits", Limits)
SCHEMA_HEAD: web.AppKey[str] = web.AppKey("schema_head", str)
"""The revision of the schema that this version of the program needs."""
PROCESS_METRICS: web.AppKey[ProcessMetrics] = web.AppKey("process_metrics", ProcessMetrics)
DOCUMENT: web.AppKey[bytes] = web.AppKey("document", bytes)
"""The OpenAPI document, as the bytes that are sent."""

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
TAKEN: web.RequestKey[Taken] = web.RequestKey("taken", Taken)
"""What came of counting the request."""
CALLER: web.RequestKey[Caller] = web.RequestKey("caller")
"""Who the caller's token says they are."""
ACTOR: web.RequestKey[Actor] = web.RequestKey("actor", Actor)
JUDGED_AT: web.RequestKey[float] = web.RequestKey("judged_at", float)
"""When it was last looked at whether they may do this, on the monotonic clock."""
SESSION: web.RequestKey[AsyncSession] = web.RequestKey("session", AsyncSession)
BODY: web.RequestKey[BaseModel] = web.RequestKey("body", BaseModel)
QUERY: web.RequestKey[BaseModel] = web.RequestKey("query", BaseModel)
UPLOAD: web.RequestKey[Any] = web.RequestKey("upload")
"""The file of a route that takes one, a `web.uploads.Upload`."""
IDS: web.RequestKey[dict[str, UUID]] = web.RequestKey("ids", dict[str, UUID])
RAW_BODY: web.RequestKey[bytes] = web.RequestKey("raw_body", bytes)
IDEMPOTENCY_CLAIM: web.RequestKey[Claim] = web.RequestKey("idempotency_claim", Claim)
"""The caller's idempotency key, where there is one, for this request to answer."""
ANSWER_IS_KEPT: web.RequestKey[bool] = web.RequestKey("answer_is_kept", bool)
"""Whether the answer to it is in the transaction."""
REMOTE: web.RequestKey[Remote] = web.RequestKey("remote", Remote)
"""Who calls, and over what, once the trusted proxies are looked through."""
