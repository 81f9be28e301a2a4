"""One request and its answer, on a connection of its own, to one of the addresses that were checked and no other."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from scheduler.http_requests.addresses import Address, as_address
from scheduler.http_requests.urls import Target

MOST_RECEIVED = 1024 * 1024
"""Bytes of one connection. What sends more before it has come to 64 KiB of body means to keep us busy: with interim
answers (1xx) without end, say, or chunks of next to nothing. aiohttp takes those as long as they come."""
LONGEST_LINE = 32 * 1024
"""Bytes of a header; aiohttp's own limit of 8190 is less than some policies (CSP) take. It takes 128 of them."""
READ_AT_ONCE = 32 * 1024


class ExchangeFailed(Exception):
    """There is no answer, or not all of it; the message is for people, and holds no path, query or header."""


@dataclass(slots=True, kw_only=True, eq=False)
class Exchange:
    """Where to, and what of it is open."""

    target: Target
    addresses: Sequence[Address]
    """Checked: the only ones that are connected to."""
    tls: ssl.SSLContext | None
    connected: Callable[[], None]
    """Called before the request is sent."""
    received_too_much: bool = False
    sockets: list[socket.socket] = field(default_factory=list)

    @asynccontextmanager
    async def send(
        self, method: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request; the block may read the answer's body by `read`. Raises `ExchangeFailed`.

        However the block ends, the connection is gone with it at once: also when the server takes nothing any more
        (closing would wait until it does), or when the caller is cancelled.
        """
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Resolved(self.addresses),
                use_dns_cache=False,
                socket_factory=self._make_socket,
                ssl=self.tls or True,
                force_close=True,
            ),
            request_class=_GuardedRequest,
            middlewares=[self._guard],
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_AT_ONCE,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        response = None
        try:
            try:
                response = await session.request(
                    method,
                    self.target.url,
                    headers=headers,
                    skip_auto_headers=["Content-Type"],  # without a body there is none to describe
                    data=body,
                    allow_redirects=False,
                )
            except _EXPECTED as error:
                raise ExchangeFailed(self._why_no_answer(error)) from None
            yield response
        finally:
            self.cut()
            if response is not None:
                response.close()
            await session.close()

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """Some more of the body; nothing at its end. Raises `ExchangeFailed`."""
        try:
            return await response.content.readany()
        except _EXPECTED as error:
            raise ExchangeFailed(self._told(f"The answer of {self.target} broke off", error)) from None

    def cut(self) -> None:
        """End the connection, whatever it is at."""
        for each in self.sockets:
            with suppress(OSError):  # closed already, or never connected
                each.shutdown(socket.SHUT_RDWR)

    # -- what aiohttp calls ------------------------------------------------------------------------------------

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        # It connects this socket to this very address, however it came by it.
        family, kind, protocol, _, address = info
        self._check(address)
        made = socket.socket(family, kind, protocol)
        self.sockets.append(made)
        return made

    async def _guard(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        assert isinstance(request, _GuardedRequest)
        request.exchange = self
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError:
            raise
        except (OSError, aiohttp.ServerDisconnectedError) as error:
            raise _ConnectionEnded(_why(error)) from None

    def begin(self, connection: aiohttp.connector.Connection) -> None:
        """Connected, and nothing sent yet: look once more at whom we speak to, and count what they say."""
        transport, protocol = connection.transport, connection.protocol
        peer = None if transport is None else transport.get_extra_info("peername")
        if transport is None or protocol is None or peer is None:
            raise ConnectionResetError("it closed the connection at once")
        self._check(peer)
        transport.set_protocol(_Counting(self, transport, protocol))
        self.connected()

    def _check(self, address: tuple[Any, ...]) -> None:
        host, port, *_ = address
        if port != self.target.port or as_address(host) not in self.addresses:
            raise OSError("that is no address that was checked")

    # -- what went wrong ---------------------------------------------------------------------------------------

    def _why_no_answer(self, error: BaseException) -> str:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return f"The certificate of {self.target} is not to be trusted: {_why(error.certificate_error)}"
        if isinstance(error, aiohttp.ClientConnectorSSLError):
            return f"TLS with {self.target} failed: {_why(error.os_error)}"
        if isinstance(error, aiohttp.ClientConnectorError):
            several = error.os_error.errno is None  # each in a way of its own
            why = "none of its addresses answers" if several else _why(error.os_error)
            return f"{self.target} can't be connected to: {why}"
        if isinstance(error, aiohttp.ClientResponseError):
            return f"The answer of {self.target} is not HTTP that can be read: {_first_words(error.message)}"
        return self._told(f"{self.target} gave no answer", error)

    def _told(self, what: str, error: BaseException) -> str:
        return f"{what}: {'it sends more than an answer needs' if self.received_too_much else _why(error)}"


class _Resolved(AbstractResolver):
    """Gives aiohttp the addresses that were found and checked before."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            {
                "hostname": host,
                "host": str(address),
                "port": port,
                "family": socket.AF_INET if address.version == 4 else socket.AF_INET6,
                "proto": socket.IPPROTO_TCP,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


class _GuardedRequest(aiohttp.ClientRequest):
    exchange: Exchange

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        self.exchange.begin(conn)
        return await super().send(conn)


class _Counting(asyncio.Protocol):
    """Stands before aiohttp's protocol and cuts the connection when too much comes."""

    def __init__(self, exchange: Exchange, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        self._exchange = exchange
        self._transport = transport
        self._protocol = protocol
        self._received = 0

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MOST_RECEIVED:
            self._exchange.received_too_much = True
            self._transport.abort()
        else:
            self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class _ConnectionEnded(Exception):
    """Not one of aiohttp's: after those it would send a GET once more, and whoever counts would count two."""


_EXPECTED = (aiohttp.ClientError, _ConnectionEnded, OSError, ValueError)


def _why(error: BaseException) -> str:
    """An error in words for people; what aiohttp says of its own may hold the URL, or what the server sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no reason given").lower().replace("_", " ")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()  # its own text may hold the address
    return _first_words(str(error)) or type(error).__name__


def _first_words(text: str) -> str:
    return text.partition("\n")[0].partition(":")[0].strip().lower()[:200]
