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
from web.middlewares.security_headers import add_security_headers
from web.problems import Problem, of_http

BACKLOG = 1024
KEEP_ALIVE_S = 75
"""An idle connection is closed after this."""
HEAD_S = 15
"""From the first byte of a request's head to its last. (`web.parsing` limits the time that a body takes.)"""
READER_S = 30
"""A client that does not take an answer: from when our buffer is full to when most of it is gone, which is some
50 kilobytes."""
MAXIMUM_LINE = 8190
"""Bytes of the request line, and of one header."""
MAXIMUM_HEADERS = 100
LINGER_S = 5
"""How long the rest of a body that nobody wants is read, so that the client sees the answer before the
connection ends."""

IDLE_DRAIN_S = 3
"""How long an ending process leaves idle connections open for one more request."""

HANDSHAKES_S = 1.0
"""A connection that is still shaking hands over TLS is none yet to aiohttp; it gets this long to become one."""

AT_ONCE_S = 0.5
"""For what is cut off after the grace time."""

_USER_TIMEOUT: int = getattr(socket, "TCP_USER_TIMEOUT", 0)

log = get_logger("web")


class _Connection(RequestHandler):
    """aiohttp's protocol, but what can't be parsed or is refused before any middleware is a problem document
    too."""

    __slots__ = ("_head_timer", "_last_ended", "_reader_timer")

    ending = False
    """Set when the process is about to end: each answer from then on is its connection's last."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._last_ended: asyncio.Future[None] | None = None
        """There once the connection is to end; done when the request that was under way then has its
        answer."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        own_socket = transport.get_extra_info("socket")
        # Only Linux has it: what a client does not take is dropped by the kernel, also what is left of an answer when
        # we have closed the connection.
        if own_socket is not None and own_socket.family in (socket.AF_INET, socket.AF_INET6) and _USER_TIMEOUT:
            own_socket.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(1000 * READER_S))

    def connection_lost(self, error: BaseException | None) -> None:
        self._head_arrived()
        self._reader_keeps_up()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Nobody was woken by it, so it was a part of a head (the parts of a body are waited for by its request).
        if self._waiter is not None and not self._waiter.done():
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(HEAD_S, self._cut_off, "head")
        elif self._head_timer is not None:
            self._head_arrived()

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_timer = self._loop.call_later(READER_S, self._cut_off, "reader")

    def resume_writing(self) -> None:
        self._reader_keeps_up()
        super().resume_writing()

    def _reader_keeps_up(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _cut_off(self, part: str) -> None:
        log.info("http.too_slow", part=part)
        if self.transport is not None:
            self.transport.abort()

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
    add_security_headers(response, secure=request.secure)
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
    PUNCTUAL_GRACE_SECONDS to finish. SIGHUP reads the certificate again. Raises OSError when the address can't be had.
    """
    stop = stop or asyncio.Event()
    _Connection.ending = False
    loop = asyncio.get_running_loop()
    context = tls_context(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` means it
        loop.add_signal_handler(signal.SIGHUP, reload_certificate, context, settings)
    runner = Runner(make_app(settings), shutdown_timeout=settings.grace_seconds)
    await runner.setup()
    try:
        for site in _sites(runner, settings, sock, context):
            await site.start()
        log.info("web.ready")
        if ready is not None:
            ready()
        await stop.wait()
        log.info("web.stopping")
        await _drain(
            runner,
            min(IDLE_DRAIN_S, settings.grace_seconds / 2),
            at_least=HANDSHAKES_S if settings.tls_cert is not None else 0,
        )
    finally:
        await runner.cleanup()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
    log.info("web.stopped")


async def _drain(runner: Runner, seconds: float, *, at_least: float) -> None:
    """Stop accepting, and let each connection end with an answer that says so.

    An idle connection that is closed at the moment at which its client sends the next request is a request
    that fails; so idle ones are left open a while, and the next answer on each says `Connection: close`
    (RFC 9112, 9.6). `at_least`: seconds in which connections may appear that were accepted before.
    """
    _Connection.ending = True
    for site in list(runner.sites):
        await site.stop()
    began = asyncio.get_running_loop().time()
    while runner.server is not None:
        waited = asyncio.get_running_loop().time() - began
        if waited >= seconds or (waited >= at_least and not runner.server.connections):
            break
        await asyncio.sleep(0.05)


def _sites(
    runner: web.AppRunner,
    settings: Settings,
    sock: socket.socket | Sequence[socket.socket] | None,
    context: ssl.SSLContext | None,
) -> list[web.BaseSite]:
    if sock is None:
        return [
            web.TCPSite(runner, settings.host, settings.port, ssl_context=context, backlog=BACKLOG, reuse_port=True)
        ]
    sockets = [sock] if isinstance(sock, socket.socket) else list(sock)
    kind = web.SockSite if context is None else _SecureSite
    return [kind(runner, each, ssl_context=context, backlog=BACKLOG) for each in sockets]


class _SecureSite(web.SockSite):
    """aiohttp's, but a client has no longer for the handshake of TLS than for the head of a request."""

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            server,
            sock=self._sock,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=HEAD_S,
            ssl_shutdown_timeout=LINGER_S,
        )


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The server's side of TLS 1.2 and up, or None where no certificate is set.

    Of 1.2 there are only suites with forward secrecy and AEAD, as RFC 9325 has it. Raises OSError (`ssl.SSLError` where
    the two files do not belong together).
    """
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # An empty password: nobody is asked at the terminal for that of an encrypted key.
    context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    return context


def reload_certificate(context: ssl.SSLContext | None, settings: Settings) -> None:
    """Read the certificate and its key again, for the connections to come. Where that fails the old ones stay."""
    if context is None or settings.tls_cert is None:
        return
    try:
        # First into another context: of two files that do not belong together the first would be taken over.
        tls_context(settings)
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except OSError as error:
        log.error("tls.not_reloaded", reason=str(error))
    else:
        log.info("tls.reloaded")


def run(settings: Settings, **options: Any) -> None:
    """`serve` on a uvloop of its own."""
    import uvloop

    uvloop.run(serve(settings, **options))
