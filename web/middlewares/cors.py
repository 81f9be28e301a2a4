"""Cross-origin requests, for an explicit list of origins (PUNCTUAL_CORS_ORIGINS); no credentials, tokens
travel in a header."""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from web.keys import SETTINGS

MAX_AGE_S = 600
_EXPOSED = ", ".join(
    (
        "ETag",
        "Idempotent-Replayed",
        "Link",
        "Location",
        "RateLimit-Limit",
        "RateLimit-Remaining",
        "RateLimit-Reset",
        "Retry-After",
        "X-Request-ID",
    )
)
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = ", ".join(
    (
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
        "Range",
        "X-Request-ID",
    )
)


@web.middleware
async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer preflights, and name the origin on the rest, when it is one of the list."""
    origins = request.app[SETTINGS].cors_origins
    if not origins:
        return await handler(request)
    origin = request.headers.get(hdrs.ORIGIN)
    allowed = origin is not None and origin in origins
    preflight = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    response = web.Response(status=204) if allowed and preflight else await handler(request)
    response.headers.add(hdrs.VARY, "Origin")
    if allowed and origin is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        if preflight:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _REQUEST_HEADERS
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(MAX_AGE_S)
        else:
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
    return response
