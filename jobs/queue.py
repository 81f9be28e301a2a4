"""The queue: how arq reaches Redis."""

from __future__ import annotations

from typing import Any

import orjson
from arq.connections import RedisSettings

from scheduler.redis_client import sentinel_address

QUEUE_NAME = "punctual:queue"


def redis_settings(url: str) -> RedisSettings:
    """arq's settings for a `redis://`, `rediss://`, `unix://` or `sentinel://h1,h2/name` URL."""
    address = sentinel_address(url)
    if address is None:
        settings = RedisSettings.from_dsn(url)
    else:
        settings = RedisSettings(
            host=address.hosts,
            sentinel=True,
            sentinel_master=address.master,
            username=address.username,
            password=address.password,
        )
    settings.conn_retries = 0  # the worker's supervisor tries again, and ticks meanwhile
    settings.conn_timeout = 2
    return settings


def serialize(value: Any) -> bytes:
    """JSON, not pickle: what comes out of Redis must not be able to run code."""
    return orjson.dumps(value, default=str)


def deserialize(raw: bytes) -> dict[str, Any]:
    """The other way round."""
    value: dict[str, Any] = orjson.loads(raw)
    return value
