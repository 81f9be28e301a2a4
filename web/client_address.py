"""Who really calls: the peer, or what the trusted proxies in front of us say (PUNCTUAL_TRUSTED_PROXIES)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aiohttp import web


class Remote(NamedTuple):
    """The caller's address (None over a unix socket without a proxy) and whether the connection to them is
    TLS."""

    address: str | None
    secure: bool


def remote_of(request: web.BaseRequest, trusted: Sequence[str]) -> Remote:
    """Look through the trusted proxies: the right-most `X-Forwarded-For` address that is not theirs
    (contract, section 9)."""
    peer = _plain(request.remote)
    if not trusted or not _is_trusted(peer, tuple(trusted)):
        return Remote(peer, request.secure)
    address = peer
    for hop in reversed(",".join(request.headers.getall("X-Forwarded-For", [])).split(",")):
        hop = hop.strip()
        if not _is_address(hop):
            break  # what stands before it was written by who knows whom
        address = _plain(hop)
        if not _is_trusted(address, tuple(trusted)):
            break
    scheme = request.headers.get("X-Forwarded-Proto", "").strip().lower()
    return Remote(address, scheme == "https" if scheme in ("http", "https") else request.secure)


@lru_cache(maxsize=64)
def _networks(trusted: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part, strict=False) for part in trusted)


def _is_trusted(address: str | None, trusted: tuple[str, ...]) -> bool:
    if address is None or not _is_address(address):
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in _networks(trusted) if network.version == parsed.version)


def _plain(address: str | None) -> str | None:
    """An IPv4 address as such, where a socket for both families gives it as `::ffff:192.0.2.1` (RFC 4291, 2.5.5.2)."""
    if address is None or not _is_address(address):
        return address
    parsed = ip_address(address)
    return str(parsed.ipv4_mapped) if parsed.version == 6 and parsed.ipv4_mapped is not None else address


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
