"""The queue: how arq reaches Redis."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from arq.connections import RedisSettings

QUEUE_NAME = "punctual:queue"
SENTINEL_PORT = 26379


def redis_settings(url: str) -> RedisSettings:
    """arq's settings for a `redis://`, `rediss://`, `unix://` or `sentinel://h1,h2/name` URL."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        settings = RedisSettings.from_dsn(url)
        settings.conn_retries = 0  # the worker's supervisor tries again, and ticks meanwhile
        settings.conn_timeout = 2
        return settings
    hosts = []
    for each in parts.netloc.rpartition("@")[2].split(","):
        host, _, port = each.partition(":")
        hosts.append((host, int(port or SENTINEL_PORT)))
    return RedisSettings(
        host=hosts,  # type: ignore[arg-type]
        sentinel=True,
        sentinel_master=parts.path.strip("/") or "mymaster",
        password=unquote(parts.password) if parts.password else None,
        conn_retries=0,
        conn_timeout=2,
    )


def serialize(value: Any) -> bytes:
    """JSON, not pickle: what comes out of Redis must not be able to run code."""
    return orjson.dumps(value, default=str)


def deserialize(raw: bytes) -> dict[str, Any]:
    """The other way round."""
    value: dict[str, Any] = orjson.loads(raw)
    return value
