"""Metrics, as Prometheus reads them."""

from __future__ import annotations

import hmac
from datetime import datetime

from aiohttp import hdrs, web

from scheduler.database import Database
from scheduler.errors import Unauthenticated
from scheduler.metrics.exposition import CONTENT_TYPE, render
from scheduler.settings import Settings
from web.authorization import bearer_token
from web.keys import PROCESS_METRICS
from web.routing import RouteTable

route = RouteTable("Service", prefix="")


@route(
    "GET",
    "/metrics",
    summary="Metrics",
    answers={200: str},
    errors=("unauthenticated",),
    auth=None,
    answer_media_type="text/plain",
)
async def get_metrics(request: web.Request, database: Database, settings: Settings, now: datetime) -> web.Response:
    """Of the service and of the process that answers, in Prometheus's text format. Open unless the operator has set a
    token (PUNCTUAL_METRICS_TOKEN), which is then to be sent as `Authorization: Bearer …`."""
    if settings.metrics_token:
        given = bearer_token(request)
        if not hmac.compare_digest(given.encode(), settings.metrics_token.encode()):
            raise Unauthenticated("This is not the token of the metrics; see PUNCTUAL_METRICS_TOKEN.")
    body = await render(database, process=request.app[PROCESS_METRICS], now=now)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})
