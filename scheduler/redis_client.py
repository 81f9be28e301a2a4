"""A client for the Redis that `PUNCTUAL_REDIS_URL` names."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

SENTINEL_PORT = 26379

REDIS_AWAY = (RedisError, OSError, TimeoutError, RuntimeError)
"""What a call raises while Redis is away. RuntimeError: uvloop's, for a connection that was closed in that moment."""


class SentinelAddress(NamedTuple):
    """What `sentinel://user:password@h1,h2:26380/name` says."""

    hosts: list[tuple[str, int]]
    master: str
    username: str | None
    password: str | None


def sentinel_address(url: str) -> SentinelAddress | None:
    """The parts of a `sentinel://` URL, or None for a URL of another kind."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return None
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    addresses = [host.partition(":") for host in hosts.split(",") if host]
    return SentinelAddress(
        hosts=[(host, int(port or SENTINEL_PORT)) for host, _, port in addresses],
        master=parts.path.strip("/") or "mymaster",
        username=unquote(username) or None,
        password=unquote(password) or None,
    )


def redis_client(url: str, *, timeout_s: float) -> Redis:
    """A client that connects when it is first used and gives up after `timeout_s` seconds."""
    patience: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    address = sentinel_address(url)
    if address is None:
        client: Redis = Redis.from_url(url, **patience)
        return client
    sentinel = Sentinel(address.hosts, sentinel_kwargs=patience)  # type: ignore[no-untyped-call]
    found: Redis = sentinel.master_for(address.master, username=address.username, password=address.password, **patience)
    return found
