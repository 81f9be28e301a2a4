"""The `Authorization` header."""

from __future__ import annotations

from aiohttp import web

from scheduler.errors import Unauthenticated


def bearer_token(request: web.BaseRequest) -> str:
    """The token in the header (RFC 6750, 2.1; the scheme's case does not matter). Raises Unauthenticated
    without one."""
    given = request.headers.getall("Authorization", [])
    scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise Unauthenticated()
    return token
