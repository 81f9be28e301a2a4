"""The request's id, in the answer, in every record of the log, and the one record that each request writes
itself; counted, too."""

from __future__ import annotations

import re
import secrets
from time import perf_counter

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from scheduler.logs import get_logger
from web.client_address import remote_of
from web.keys import ACTOR, PROCESS_METRICS, REMOTE, REQUEST_ID, SETTINGS
from web.routing import contract_of

HEADER = "X-Request-ID"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = get_logger("web")


def request_id_of(headers: web.BaseRequest) -> str:
    """The id that the caller gave, when it is 1 to 128 of `[A-Za-z0-9._-]`, else a new one."""
    given = headers.headers.get(HEADER)
    return given if given is not None and _ACCEPTABLE.fullmatch(given) else secrets.token_hex(12)


@web.middleware
async def request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost: what happens inside is logged with the id, and how long it took."""
    began = perf_counter()
    metrics = request.app[PROCESS_METRICS]
    metrics.began()
    own_id = request_id_of(request)
    request[REQUEST_ID] = own_id
    request[REMOTE] = remote_of(request, request.app[SETTINGS].trusted_proxies)
    structlog.contextvars.bind_contextvars(request_id=own_id)
    response: web.StreamResponse | None = None
    try:
        response = await handler(request)
        response.headers[HEADER] = own_id
        return response
    finally:
        actor = request.get(ACTOR)
        contract = contract_of(request)
        route = contract.path if contract else "unknown"
        status = response.status if response is not None else 499
        seconds = perf_counter() - began
        metrics.ended(method=request.method, route=route, status=status, seconds=seconds)
        log.info(
            "http.request",
            method=request.method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            user_id=str(actor.user_id) if actor else None,
        )
        # The connection's next request starts in a context of its own; nothing to unbind.
