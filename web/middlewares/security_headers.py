"""Headers that every answer carries, errors included (contract, section 1)."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from web.keys import REMOTE

NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""An answer of the API is data: a browser that is made to show it must run and fetch nothing. Pages set
their own."""

_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", NOTHING),
    ("Cache-Control", "no-store"),
)
_ONE_YEAR = "max-age=31536000"


@web.middleware
async def security_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add them where the handler has not set its own."""
    response = await handler(request)
    add_security_headers(response, secure=request[REMOTE].secure)
    return response


def add_security_headers(response: web.StreamResponse, *, secure: bool) -> None:
    """Add those that are not there yet; `secure`: the caller has come over TLS (RFC 6797 forbids HSTS elsewhere)."""
    headers = response.headers
    for name, value in _HEADERS:
        if name not in headers:
            headers[name] = value
    if secure:
        headers["Strict-Transport-Security"] = _ONE_YEAR
