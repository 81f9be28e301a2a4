"""Sending a request for a person: within hard limits, and never to an address that is refused.

The check is made on the addresses that are connected to: a name is looked up once a hop, by ourselves, each of its
addresses is held against the rules, and connections are made to none but those that passed. A name server that gives
another answer a moment later is not asked again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import aiohttp

from scheduler.http_requests.addresses import LOOPBACK, Address, is_localhost, plain, read_allowed_hosts
from scheduler.http_requests.answers import Answer, Body, kept_headers
from scheduler.http_requests.exchange import Exchange, ExchangeFailed
from scheduler.http_requests.headers import redirected_headers, sent_headers
from scheduler.http_requests.lookups import Resolve, SystemResolver
from scheduler.http_requests.urls import Target, read_location, read_url
from scheduler.settings import Settings

MOST_REDIRECTS = 5
DEFAULT_TIMEOUT_S = 10.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class RequestFailed(Exception):
    """There is no answer, or not all of it; the message is for the person whose request it is.

    It never holds a path, a query or a header: those may be secrets. `answer` is what did come.
    """

    is_permanent: ClassVar[bool] = False
    """Whether asking again changes nothing."""

    def __init__(self, message: str, *, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class AddressRefused(RequestFailed):
    """It leads to an address that the service doesn't reach for people."""

    is_permanent = True


class UrlRefused(RequestFailed):
    """This is no URL that a request can go to."""

    is_permanent = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send. What may hold secrets is in no repr."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Seconds for all of it: looking names up, redirects, the body of the answer."""
    final: frozenset[int] = frozenset()
    """Redirects that are not followed, but are the answer."""


class HttpRequests:
    """Sends requests for people; one a process. Connections, cookies and names are kept from none to the next.

    `resolve` finds the addresses of a name; `tls` is what certificates are held against (default: the system's trust
    store; `SSL_CERT_FILE` is honoured). Belongs to the event loop in which it is first used.
    """

    def __init__(
        self, settings: Settings, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._allowed = read_allowed_hosts(settings.allowed_private_hosts)
        self._resolve = resolve or SystemResolver()
        self._tls = tls
        self._under_way: set[Exchange] = set()

    async def send(self, request: Request) -> Answer:
        """Send it, follow redirects, and read the answer, in `timeout_s` seconds. Raises `RequestFailed`."""
        progress = _Progress(request)
        try:
            async with asyncio.timeout(request.timeout_s):
                await self._send(progress)
        except TimeoutError:
            failure = RequestFailed(f"{progress.doing} took too long: there are {request.timeout_s:g} s for all of it")
        except ExchangeFailed as error:
            failure = RequestFailed(str(error))
        except RequestFailed as error:
            failure = error
        else:
            return progress.answer()
        failure.answer = progress.answer(is_whole=False) if progress.has_answer else None
        raise failure from None  # what came before may hold the URL

    async def close(self) -> None:
        """Cut the connections of requests that are still under way: they fail."""
        for exchange in self._under_way:
            exchange.cut()

    async def _send(self, progress: _Progress) -> None:
        """Hop by hop."""
        try:
            target = read_url(progress.request.url)
        except ValueError as error:
            raise UrlRefused(f"The URL {error}") from None
        for _ in range(MOST_REDIRECTS + 1):
            location = await self._send_to(target, progress)
            if location is None:
                return
            try:
                next_target = read_location(location, base=target)
            except ValueError as error:
                raise RequestFailed(f"{target} redirects to a URL that is not followed: it {error}") from None
            progress.request = _redirected(progress.request, progress.status, from_=target, to=next_target)
            target = next_target
        raise RequestFailed(f"There are more than {MOST_REDIRECTS} redirects, the next one to {target}")

    async def _send_to(self, target: Target, progress: _Progress) -> str | None:
        """One hop. Returns where it redirects to; None: this is the answer, and it is read."""
        progress.doing = f"Looking up {target.host}"
        addresses = await self._addresses(target)
        progress.doing = f"Connecting to {target}"
        if target.url.scheme == "https" and self._tls is None:
            # In a thread: reading the trust store takes 10-50 ms.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        exchange = Exchange(
            target=target, addresses=addresses, tls=self._tls, connected=lambda: progress.wait_for(target)
        )
        self._under_way.add(exchange)
        try:
            request = progress.request
            headers = sent_headers(request.headers, has_body=request.body is not None)
            async with exchange.send(request.method, headers=headers, body=request.body) as response:
                progress.begin_answer(response)
                location = response.headers.get("Location")
                if location is not None and response.status in _REDIRECTS - request.final:
                    return location  # the body of a redirect is nobody's concern
                progress.doing = f"Reading the answer of {target}"
                while chunk := await exchange.read(response):
                    if not progress.body.feed(chunk):
                        break
                return None
        finally:
            self._under_way.discard(exchange)

    async def _addresses(self, target: Target) -> list[Address]:
        """The addresses to connect to. Raises `AddressRefused` when none may be reached.

        Of a name with several, those that are refused are just not used: `localhost` is both 127.0.0.1 and ::1 where
        the operator lists one of them. Nothing is lost by it: what is connected to has passed the check either way.
        """
        if target.address is not None:
            found: Sequence[Address] = [target.address]
        elif is_localhost(target.host):
            found = LOOPBACK
        else:
            try:
                found = await self._resolve(target.url.raw_host or target.host)
            except OSError as error:
                why = error.strerror if isinstance(error, socket.gaierror) else str(error)
                raise RequestFailed(f"{target.host} could not be looked up: {why or 'nobody answers'}") from None
            if not found:
                raise RequestFailed(f"{target.host} could not be looked up: it has no address")
        if target.address is None and self._allowed.takes_name(target.host, target.port):
            return [plain(address) for address in found]
        reachable = [plain(address) for address in found if self._allowed.may_reach(address, target.port)]
        if not reachable:
            # Not which address: that would let anybody read the names of the operator's own network.
            raise AddressRefused(
                f"{target} is private, or leads to a private address: the service reaches those for people only where"
                " its operator allows it (PUNCTUAL_ALLOWED_PRIVATE_HOSTS)"
            )
        return reachable


class _Progress:
    """How far a request has come: what is told when the time is over just then."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.doing = "It"
        self.has_answer = False
        self.status = 0
        self.body = Body()
        self._headers: dict[str, str] = {}
        self._charset: str | None = None
        self._began = time.monotonic()

    def wait_for(self, target: Target) -> None:
        self.doing = f"Waiting for the answer of {target}"

    def begin_answer(self, response: aiohttp.ClientResponse) -> None:
        self.has_answer = True
        self.status = response.status
        self.body = Body(response.headers.get("Content-Encoding", ""))
        self._headers = kept_headers(response.raw_headers)
        self._charset = response.charset

    def answer(self, *, is_whole: bool = True) -> Answer:
        """As it is now: the body is what was read of it."""
        if not is_whole:
            self.body.truncated = True
        return Answer(
            status=self.status,
            headers=self._headers,
            body=self.body.text(self._charset),
            truncated=self.body.truncated,
            duration_ms=round((time.monotonic() - self._began) * 1000),
        )


def _redirected(request: Request, status: int, *, from_: Target, to: Target) -> Request:
    """The request as it goes on to `to`: as browsers and RFC 9110, 15.4 have it."""
    becomes_get = (status == 303 and request.method != "HEAD") or (status in (301, 302) and request.method == "POST")
    return replace(
        request,
        method="GET" if becomes_get else request.method,
        url=str(to.url),
        headers=redirected_headers(request.headers, same_origin=to.origin == from_.origin, keeps_body=not becomes_get),
        body=None if becomes_get else request.body,
    )
