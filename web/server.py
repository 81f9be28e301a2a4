"""The server: aiohttp on uvloop, with limits for slow and large clients, problem documents for what is not
HTTP, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from scheduler.logs import get_logger
from scheduler.settings import Settings
from web.app import make_app
from web.middlewares.request_id import HEADER, request_id_of
from web.problems import Problem, of_http

BACKLOG = 1024
KEEP_ALIVE_S = 75
"""An idle connection is closed after this; so is one that has not sent a whole request head this long after
the last answer."""
MAXIMUM_LINE = 8190
"""Bytes of the request line, and of one header."""
MAXIMUM_HEADERS = 100
LINGER_S = 5
"""How long the rest of a body that nobody wants is read, so that the client sees the answer before the
connection ends."""

IDLE_DRAIN_S = 3
"""How long an ending process leaves idle connections open for one more request."""

AT_ONCE_S = 0.5
"""For what is cut off after the grace time."""

log = get_logger("web")


class _Connection(RequestHandler):
    """aiohttp's protocol, but what can't be parsed or is refused before any middleware is a problem document
    too."""

    __slots__ = ("_last_ended",)

    ending = False
    """Set when the process is about to end: each answer from then on is its connection's last."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._last_ended: asyncio.Future[None] | None = None
        """There once the connection is to end; done when the request that was under way then has its
        answer."""

    def close(self) -> None:
        # aiohttp's own would drop what is still to come of a body, so that its request could never be
        # finished.
        if not self._request_in_progress:
            super().close()
        elif self._last_ended is None:
            self._last_ended = self._loop.create_future()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        if self._last_ended is not None:
            await asyncio.wait({self._last_ended}, timeout=timeout)
            timeout = AT_ONCE_S
        await super().shutdown(timeout)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            log.error("http.failed", exc_info=exc)
        else:
            log.info("http.unreadable", status=status, reason=type(exc).__name__ if exc else None)
        # Something was sent already: nothing more can be said on this connection.
        if request.writer is not None and request.writer.output_size > 0:
            raise ConnectionError("An answer is under way already")
        response = _bare(request, of_http(400 if isinstance(exc, HttpProcessingError) else status))
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        # Raised outside the middlewares: an `Expect` that nobody meets.
        if isinstance(resp, web.HTTPException):
            resp = _bare(request, of_http(resp.status))
        if _Connection.ending:
            resp.force_close()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            if self._last_ended is not None:
                super().close()
                if not self._last_ended.done():
                    self._last_ended.set_result(None)


def _bare(request: web.BaseRequest, problem: Problem) -> web.Response:
    own_id = request_id_of(request)
    response = problem.response(own_id)
    response.headers[HEADER] = own_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    return response


class _Server(web.Server):
    """Makes our connections."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """An AppRunner with our connections and limits. Its own access log is off: it costs more than half of
    the throughput."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        limits: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": KEEP_ALIVE_S,
            "max_line_size": MAXIMUM_LINE,
            "max_field_size": MAXIMUM_LINE,
            "max_headers": MAXIMUM_HEADERS,
            "lingering_time": LINGER_S,
        }
        super().__init__(app, **{**limits, **options})

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **made._kwargs,
        )


async def serve(
    settings: Settings,
    *,
    sock: socket.socket | Sequence[socket.socket] | None = None,
    ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT (or `stop` is set), then end in order.

    `sock`: bound sockets to accept from; without, PUNCTUAL_HOST and PUNCTUAL_PORT, with SO_REUSEPORT.
    `ready` is called
    once connections are accepted. The end: no new connections, idle ones are closed, requests under way get
    PUNCTUAL_GRACE_SECONDS to finish. Raises OSError when the address can't be had.
    """
    stop = stop or asyncio.Event()
    _Connection.ending = False
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = Runner(make_app(settings), shutdown_timeout=settings.grace_seconds)
    await runner.setup()
    try:
        for site in _sites(runner, settings, sock):
            await site.start()
        log.info("web.ready")
        if ready is not None:
            ready()
        await stop.wait()
        log.info("web.stopping")
        await _drain(runner, min(IDLE_DRAIN_S, settings.grace_seconds / 2))
    finally:
        await runner.cleanup()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    log.info("web.stopped")


async def _drain(runner: Runner, seconds: float) -> None:
    """Stop accepting, and let each connection end with an answer that says so.

    An idle connection that is closed at the moment at which its client sends the next request is a request
    that fails; so idle ones are left open a while, and the next answer on each says `Connection: close`
    (RFC 9112, 9.6).
    """
    _Connection.ending = True
    for site in list(runner.sites):
        await site.stop()
    deadline = asyncio.get_running_loop().time() + seconds
    while runner.server is not None and runner.server.connections:
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(0.05)


def _sites(
    runner: web.AppRunner, settings: Settings, sock: socket.socket | Sequence[socket.socket] | None
) -> list[web.BaseSite]:
    context = tls_context(settings)
    if sock is None:
        return [
            web.TCPSite(runner, settings.host, settings.port, ssl_context=context, backlog=BACKLOG, reuse_port=True)
        ]
    sockets = [sock] if isinstance(sock, socket.socket) else list(sock)
    return [web.SockSite(runner, each, ssl_context=context, backlog=BACKLOG) for each in sockets]


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The server's side of TLS 1.2 and up, or None where no certificate is set."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def run(settings: Settings, **options: Any) -> None:
    """`serve` on a uvloop of its own."""
    import uvloop

    uvloop.run(serve(settings, **options))
