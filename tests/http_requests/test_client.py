"""A request for a person over real sockets: what it sends, what it keeps of the answer, and where it never goes.

Receivers listen on loopback addresses, which are private: what a test means to reach, its client is allowed to; and
names lead where the test's own resolver says.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import ipaddress
import os
import socket
import ssl
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from scheduler.http_requests.addresses import Address
from scheduler.http_requests.answers import LONGEST_BODY, Answer
from scheduler.http_requests.client import AddressRefused, HttpRequests, Request, RequestFailed, UrlRefused
from scheduler.http_requests.exchange import Exchange, ExchangeFailed
from scheduler.http_requests.lookups import SystemResolver
from scheduler.http_requests.urls import read_url
from scheduler.settings import Settings
from tests.http_receiver import (
    Script,
    answer,
    cut,
    http_receiver,
    never_ends,
    redirects,
    reset,
    says,
    silent,
    writes,
)

LOOPBACK = "127.0.0.1"
SECRET = "hunter2-correct-horse"


def _is_ours(address: str) -> bool:
    """Whether one can listen at an address here: not all systems have all of 127.0.0.0/8, or IPv6."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as trial:
        try:
            trial.bind((address, 0))
        except OSError:
            return False
    return True


needs_two_addresses = pytest.mark.skipif(not _is_ours("127.0.0.2"), reason="127.0.0.2 is no address of this machine")
needs_ipv6 = pytest.mark.skipif(not _is_ours("::1"), reason="this machine has no IPv6")
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc to see open sockets in")


@dataclass
class Names:
    """A name server: one answer after the other for a name, the last one again and again."""

    answers: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, name: str) -> Sequence[Address]:
        self.asked.append(name)
        if name not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.answers[name]
        given = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(each) for each in given.split()]


def client(
    *allowed: str, names: dict[str, list[str]] | Names | None = None, tls: ssl.SSLContext | None = None
) -> HttpRequests:
    """A client that may reach these private hosts."""
    resolver = names if isinstance(names, Names) else Names(names or {})
    return HttpRequests(Settings(allowed_private_hosts=allowed), resolve=resolver, tls=tls)


async def get(url: str, *allowed: str, timeout_s: float = 5, names: dict[str, list[str]] | None = None) -> Answer:
    """GET what is at a URL."""
    return await client(*(allowed or (LOOPBACK,)), names=names).send(
        Request(method="GET", url=url, timeout_s=timeout_s)
    )


async def fails(
    url: str, *allowed: str, timeout_s: float = 5, names: dict[str, list[str]] | None = None
) -> RequestFailed:
    """How getting what is at a URL fails."""
    with pytest.raises(RequestFailed) as raised:
        await get(url, *allowed, timeout_s=timeout_s, names=names)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__  # what came before may hold the URL
    return raised.value


# -- what is sent and what is kept -----------------------------------------------------------------------------


async def test_an_answer() -> None:
    raw = answer("201 Created", b"hello", content_type="text/plain", x_custom="1", set_cookie=["a=1", "b=2"])
    async with http_receiver(says(raw)) as receiver:
        got = await get(receiver.url + "/path?a=b&c=%20#fragment")
    result = got.as_result()
    duration_ms = result.pop("duration_ms")
    assert isinstance(duration_ms, int) and 0 <= duration_ms < 5000
    assert result == {
        "status": 201,
        "headers": {"Content-Length": "5", "Content-Type": "text/plain", "X-Custom": "1", "Set-Cookie": "a=1\nb=2"},
        "body": "hello",
        "truncated": False,
    }
    request = receiver.request
    assert (request.method, request.target, request.body) == ("GET", "/path?a=b&c=%20", b"")
    assert request.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "user-agent": request.headers["user-agent"],
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }
    assert request.headers["user-agent"].startswith("Punctual/")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_each_method_with_headers_and_a_body(method: str) -> None:
    headers = {
        "Content-Type": "application/json",
        "X-Unicode": "Grüße",
        "user-agent": "mine",
        "AUTHORIZATION": "Bearer x",
    }
    body = '{"a": "ü"}'.encode()
    async with http_receiver(says(answer(body=b"" if method == "HEAD" else b"ok", length=2))) as receiver:
        got = await client(LOOPBACK).send(Request(method=method, url=receiver.url, headers=headers, body=body))
    assert (got.status, got.body) == (200, "" if method == "HEAD" else "ok")
    request = receiver.request
    assert (request.method, request.target, request.body) == (method, "/", body)
    assert {name: request.headers[name.lower()] for name in headers} == headers
    assert set(headers) <= set(request.names)  # spelled as given


async def test_a_body_has_a_media_type_and_a_length() -> None:
    async with http_receiver(says(answer())) as receiver:
        http = client(LOOPBACK)
        await http.send(Request(method="POST", url=receiver.url, body=b"text"))
        await http.send(Request(method="POST", url=receiver.url, body=b""))
        await http.send(Request(method="POST", url=receiver.url))
    sent = [(each.headers.get("content-type"), each.headers.get("content-length")) for each in receiver.requests]
    assert sent == [("text/plain; charset=utf-8", "4"), ("text/plain; charset=utf-8", "0"), (None, "0")]


async def test_nothing_is_kept_from_one_request_to_the_next() -> None:
    raw = answer(body=b"ok", set_cookie="session=1; Path=/")
    async with http_receiver(says(raw)) as receiver:
        http = client(LOOPBACK)
        for _ in range(3):
            await http.send(Request(method="GET", url=receiver.url))
        assert receiver.connections == 3
        assert all("cookie" not in request.headers for request in receiver.requests)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with http_receiver(says(answer(body=b"direct"))) as receiver:
        assert (await get(receiver.url)).body == "direct"


async def test_many_at_once() -> None:
    async with http_receiver(writes(0.1, answer(body=b"ok"))) as receiver:
        http = client(LOOPBACK)
        began = time.monotonic()
        got = await asyncio.gather(*(http.send(Request(method="GET", url=receiver.url)) for _ in range(50)))
    assert [each.body for each in got] == ["ok"] * 50
    assert time.monotonic() - began < 4  # each takes 0.1 s


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_sent_once_though_its_connection_is_cut(method: str) -> None:
    """aiohttp by itself would send a GET again."""
    for script in (cut, reset):
        async with http_receiver(script) as receiver:
            with pytest.raises(RequestFailed, match="gave no answer"):
                await client(LOOPBACK).send(Request(method=method, url=receiver.url))
            assert len(receiver.requests) == receiver.connections == 1


# -- never to what is private ----------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [(), ("127.0.0.2",), ("127.0.0.1:1",), ("localhost",), ("::1",), ("10.0.0.0/8",)])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "127.0.0.1.", "[::ffff:127.0.0.1]"])
async def test_a_private_address_is_not_connected_to(host: str, allowed: tuple[str, ...]) -> None:
    async with http_receiver(says(answer())) as receiver:
        with pytest.raises(AddressRefused, match="PUNCTUAL_ALLOWED_PRIVATE_HOSTS") as raised:
            await client(*allowed).send(Request(method="GET", url=f"http://{host}:{receiver.port}/"))
        await asyncio.sleep(0.05)
        assert receiver.connections == 0
    assert raised.value.is_permanent and raised.value.answer is None


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "0", "127.0.0.53", "169.254.169.254", "10.0.0.1", "[::1]", "[::]", "[fd00::1]"]
)
async def test_nor_are_others(host: str) -> None:
    began = time.monotonic()
    assert isinstance(await fails(f"http://{host}/", "127.0.0.1"), AddressRefused)
    assert time.monotonic() - began < 3  # refused, and not tried


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "a.localhost"])
async def test_localhost_is_loopback_whatever_name_servers_say(name: str) -> None:
    async with http_receiver(says(answer(body=b"ok"))) as receiver:
        names = Names({name.lower(): ["93.184.216.34"]})
        with pytest.raises(AddressRefused):
            await client(names=names).send(Request(method="GET", url=f"http://{name}:{receiver.port}/"))
        assert receiver.connections == 0
        # ::1 is not listed, and not used; one of the two will do.
        got = await client(LOOPBACK, names=names).send(Request(method="GET", url=f"http://{name}:{receiver.port}/"))
        assert got.body == "ok" and names.asked == []


@pytest.mark.parametrize("addresses", ["127.0.0.1", "10.0.0.1 127.0.0.1", "::ffff:127.0.0.1", "::1 127.0.0.1"])
async def test_a_name_that_leads_to_private_addresses_alone(addresses: str) -> None:
    async with http_receiver(says(answer())) as receiver:
        with pytest.raises(AddressRefused) as raised:
            await client(names={"a.example": [addresses]}).send(
                Request(method="GET", url=f"http://a.example:{receiver.port}/")
            )
        assert receiver.connections == 0
    assert "a.example" in str(raised.value) and raised.value.is_permanent
    assert not any(address in str(raised.value) for address in addresses.split())  # nobody maps our network by it


@needs_two_addresses
async def test_of_a_names_addresses_only_those_that_may_be_reached_are_used() -> None:
    async with (
        http_receiver(says(answer(body=b"may"))) as may,
        http_receiver(says(answer(body=b"may not")), host="127.0.0.2", port=may.port) as may_not,
    ):
        for addresses in ("127.0.0.2 127.0.0.1", "127.0.0.1 127.0.0.2", "::1 127.0.0.2 10.0.0.1 127.0.0.1"):
            got = await get(f"http://a.example:{may.port}/", "127.0.0.1", names={"a.example": [addresses]})
            assert got.body == "may"
        # Where the one that may be reached does not answer, the other is no way out.
        await may.stop()
        await fails(f"http://a.example:{may.port}/", "127.0.0.1", names={"a.example": ["127.0.0.1 127.0.0.2"]})
        assert may_not.connections == 0
        await may.start()


async def test_a_name_that_is_listed_may_lead_anywhere() -> None:
    async with http_receiver(says(answer(body=b"ok"))) as receiver:
        url = f"http://Hooks.Internal.:{receiver.port}/"
        names = {"hooks.internal.": ["127.0.0.1"]}
        assert (await get(url, "hooks.internal", names=names)).body == "ok"
        assert (await get(url, f"hooks.internal:{receiver.port}", names=names)).body == "ok"
        assert isinstance(await fails(url, "hooks.internal:1", names=names), AddressRefused)
        assert isinstance(await fails(url, "internal", names=names), AddressRefused)
        assert receiver.connections == 2


@needs_two_addresses
async def test_a_name_whose_answers_change_is_looked_up_once_a_hop() -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    scripts = {"/": says(answer(body=b"may")), "/again": redirects("302 Found", "/")}
    async with (
        http_receiver(scripts) as may,
        http_receiver(says(answer(body=b"may not")), host="127.0.0.2", port=may.port) as may_not,
    ):
        for path in ("/", "/again"):
            for attempt in range(5):
                names = Names({"a.example": ["127.0.0.1", "127.0.0.2"]})
                http = client("127.0.0.1", names=names)
                request = Request(method="GET", url=f"http://a.example:{may.port}{path}")
                if path == "/":
                    assert (await http.send(request)).body == "may"
                    assert names.asked == ["a.example"], attempt
                # From here on the name leads to the other.
                with pytest.raises(AddressRefused):
                    await http.send(request)
                assert names.asked == ["a.example"] * 2
        assert may_not.connections == 0
        assert may.connections == 10


@needs_ipv6
async def test_ipv6() -> None:
    async with http_receiver(says(answer(body=b"ok")), host="::1") as receiver:
        assert (await get(receiver.url, "::1")).body == "ok"
        assert (await get(receiver.url, f"[::/64]:{receiver.port}")).body == "ok"
        assert (
            await get(f"http://a.example:{receiver.port}", "::1", names={"a.example": ["::1 10.0.0.1"]})
        ).body == "ok"
        assert isinstance(await fails(receiver.url, "127.0.0.1"), AddressRefused)
        assert receiver.requests[0].headers["host"] == f"[::1]:{receiver.port}"


async def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    async with http_receiver(says(answer(body=b"ok"))) as receiver:
        names = {"a.example": ["127.0.0.3 ::1 127.0.0.1"]}
        assert (await get(f"http://a.example:{receiver.port}/", "127.0.0.0/8", "::1", names=names)).body == "ok"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "http://user:hunter2-correct-horse@example.com/",
        "http://",
        "http://[::1%25lo]/",
        "http://1.2.3.4.5/",
    ],
)
async def test_what_is_no_url(url: str) -> None:
    failure = await fails(url)
    assert isinstance(failure, UrlRefused) and failure.is_permanent
    assert SECRET not in str(failure)


class _Careless(Exchange):
    """As if aiohttp made its sockets by itself one day."""

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        return socket.socket(*info[:3])


@needs_two_addresses
@pytest.mark.parametrize("host", ["127.0.0.1", "a.example"])
async def test_the_socket_itself_is_held_to_what_was_checked(host: str) -> None:
    """Addresses in URLs go past aiohttp's resolvers; whatever it is told, it connects to none but those."""
    async with (
        http_receiver(says(answer())) as receiver,
        http_receiver(says(answer()), host="127.0.0.2", port=receiver.port) as checked,
    ):
        target = read_url(f"http://{host}:{receiver.port}/")
        for kind in (Exchange, _Careless):
            exchange = kind(
                target=target, addresses=[ipaddress.ip_address("127.0.0.2")], tls=None, connected=lambda: None
            )
            if host == "a.example":
                async with exchange.send("GET", headers={}, body=None) as response:
                    assert response.status == 200
                continue
            with pytest.raises(ExchangeFailed):
                async with exchange.send("GET", headers={}, body=None):
                    pass
            assert receiver.connections == (kind is _Careless)
        assert receiver.requests == []  # not a byte is sent before the last look at whom we speak to
        assert len(checked.requests) == (2 if host == "a.example" else 0)


# -- redirects -------------------------------------------------------------------------------------------------

HEADERS = {"Content-Type": "text/x", "X-Other": "1", "Authorization": SECRET, "Cookie": SECRET, "X-Api-Key": SECRET}


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        *[(status, method, method) for status in (301, 302) for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE")],
        *[(status, "POST", "GET") for status in (301, 302)],
        *[(303, method, "GET") for method in ("GET", "POST", "PUT", "DELETE")],
        (303, "HEAD", "HEAD"),
        *[(status, method, method) for status in (307, 308) for method in ("GET", "HEAD", "POST", "PATCH")],
    ],
)
async def test_a_redirect_on_the_same_origin(status: int, method: str, becomes: str) -> None:
    scripts = {"/from": redirects(f"{status} Elsewhere", "/to?x=1"), "/to": says(answer())}
    async with http_receiver(scripts) as receiver:
        request = Request(method=method, url=receiver.url + "/from", headers=HEADERS, body=b"body")
        assert (await client(LOOPBACK).send(request)).status == 200
    first, second = receiver.requests
    assert (first.method, first.body) == (method, b"body")
    keeps_body = becomes == method and not (status == 303 and method != "HEAD")
    assert (second.method, second.target) == (becomes, "/to?x=1")
    assert second.body == (b"body" if keeps_body else b"")
    sent_again = {name: value for name, value in HEADERS.items() if name.lower() in second.headers}
    assert sent_again == (HEADERS if keeps_body else {k: v for k, v in HEADERS.items() if k != "Content-Type"})


async def test_a_redirect_to_another_origin_takes_no_secrets_along() -> None:
    async with http_receiver(says(answer(body=b"there"))) as other, http_receiver({}) as receiver:
        receiver.scripts["/"] = redirects("307 Elsewhere", f"{other.url}/to")
        request = Request(method="POST", url=receiver.url, headers=HEADERS, body=b"body")
        assert (await client(LOOPBACK).send(request)).body == "there"
    assert other.request.body == b"body"
    assert not any(SECRET in value for value in other.request.headers.values())
    assert other.request.headers["x-other"] == "1" and other.request.headers["content-type"] == "text/x"


async def test_secrets_that_were_left_behind_do_not_come_back() -> None:
    async with http_receiver({}) as other:
        scripts = {"/": redirects("302 F", f"{other.url}/there"), "/back": says(answer(body=b"back"))}
        async with http_receiver(scripts) as receiver:
            other.scripts["/there"] = redirects("302 F", f"{receiver.url}/back")
            assert (
                await client(LOOPBACK).send(Request(method="GET", url=receiver.url, headers=HEADERS))
            ).body == "back"
    assert "authorization" in receiver.requests[0].headers and "authorization" not in receiver.requests[1].headers


async def test_five_redirects_are_followed_and_no_more() -> None:
    async with http_receiver({f"/{n}": redirects("302 Found", f"/{n - 1}") for n in range(1, 10)}) as receiver:
        receiver.scripts["/0"] = says(answer(body=b"here"))
        assert (await get(f"{receiver.url}/5")).body == "here"
        assert len(receiver.requests) == 6
        receiver.requests.clear()
        failure = await fails(f"{receiver.url}/6")
        assert "more than 5 redirects" in str(failure) and not failure.is_permanent
        assert [each.path for each in receiver.requests] == ["/6", "/5", "/4", "/3", "/2", "/1"]
    assert failure.answer is not None
    assert (failure.answer.status, failure.answer.headers["Location"]) == (302, "/0")


async def test_a_redirect_to_itself() -> None:
    async with http_receiver(redirects("301 Moved Permanently", "/")) as receiver:
        assert "redirects" in str(await fails(receiver.url))
        assert len(receiver.requests) == 6


@needs_two_addresses
@pytest.mark.parametrize("location", ["http://{}:{}/", "//{}:{}/"])
@pytest.mark.parametrize(
    "host", ["127.0.0.2", "127.2", "0x7f000002", "private.example", "0.0.0.0", "[::ffff:127.0.0.2]"]
)
async def test_a_redirect_to_what_is_private(host: str, location: str) -> None:
    async with (
        http_receiver({}) as receiver,
        http_receiver(says(answer(body=b"private")), host="127.0.0.2", port=receiver.port) as private,
    ):
        receiver.scripts["/"] = redirects("302 Found", location.format(host, private.port))
        failure = await fails(receiver.url, "127.0.0.1", names={"private.example": ["127.0.0.2"]})
        assert isinstance(failure, AddressRefused)
        assert private.connections == 0
    assert failure.answer is not None and failure.answer.status == 302


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "http://a:b@127.0.0.1/",
        "http://[::1",
        "http://256.1.1.1/",
    ],
)
async def test_a_redirect_to_what_is_no_url(location: str) -> None:
    async with http_receiver(redirects("302 Found", location)) as receiver:
        failure = await fails(receiver.url)
        assert "redirects to a URL that is not followed" in str(failure)
        assert len(receiver.requests) == 1


async def test_a_redirect_that_is_wanted_is_the_answer() -> None:
    scripts = {"/": redirects("302 Found", "/to"), "/to": says(answer())}
    async with http_receiver(scripts) as receiver:
        request = Request(method="GET", url=receiver.url, final=frozenset({301, 302}))
        got = await client(LOOPBACK).send(request)
        assert (got.status, got.headers["Location"], len(receiver.requests)) == (302, "/to", 1)


@pytest.mark.parametrize(
    "raw", [answer("302 Found", b"nowhere"), answer("304 Not Modified"), answer("300 M", b"x", location="/")]
)
async def test_what_is_no_redirect(raw: bytes) -> None:
    async with http_receiver(says(raw)) as receiver:
        assert (await get(receiver.url)).status in (300, 302, 304)
        assert len(receiver.requests) == 1


async def test_the_body_of_a_redirect_is_not_read() -> None:
    endless = never_ends(b"HTTP/1.1 302 Found\r\nLocation: /to\r\n\r\n", b"x" * 1000)
    async with http_receiver({"/": endless, "/to": says(answer(body=b"ok"))}) as receiver:
        assert (await get(receiver.url)).body == "ok"


# -- limits ----------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "doing", "body"),
    [
        (silent, "Waiting for the answer of", None),
        (writes(0.2, b"HTTP/1.1 200 OK\r\n", *(b"X: y\r\n", 0.2) * 20), "Waiting for the answer of", None),
        (writes(HEAD + b"one ", 60.0), "Reading the answer of", "one "),
        (writes(HEAD, *(b"drop ", 0.1) * 100), "Reading the answer of", "drop drop "),
        (redirects("302 Found", "/"), None, ""),
    ],
)
async def test_the_time_is_for_all_of_it(script: Script, doing: str | None, body: str | None) -> None:
    async with http_receiver(writes(0.3, answer("302 F", location="/")) if doing is None else script) as receiver:
        began = time.monotonic()
        failure = await fails(receiver.url, timeout_s=1)
        assert 0.9 < time.monotonic() - began < 3
        assert f"{doing or 'Waiting for the answer of'} 127.0.0.1:{receiver.port} took too long" in str(failure)
        await asyncio.wait_for(receiver.hung_up.wait(), 3)
    if body is None:
        assert failure.answer is None
    else:
        assert failure.answer is not None and failure.answer.truncated and failure.answer.body.startswith(body)


async def test_the_time_for_looking_up_a_name_counts() -> None:
    async def hangs(_: str) -> Sequence[Address]:
        await asyncio.sleep(60)
        return []

    http = HttpRequests(Settings(), resolve=hangs)
    began = time.monotonic()
    with pytest.raises(RequestFailed, match=r"Looking up a\.example took too long: there are 0\.3 s for all of it"):
        await http.send(Request(method="GET", url="http://a.example/", timeout_s=0.3))
    assert time.monotonic() - began < 3


async def test_a_server_that_never_accepts() -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        address = listener.getsockname()
        filling = [socket.socket() for _ in range(4)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(address)
        await asyncio.sleep(0.05)
        failure = await fails(f"http://127.0.0.1:{address[1]}/", timeout_s=0.5)
        assert "took too long" in str(failure)
        for each in filling:
            each.close()


@pytest.mark.parametrize("length", [LONGEST_BODY - 1, LONGEST_BODY, LONGEST_BODY + 1, 1_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_first_64_kib_of_the_body_are_kept(length: int, chunked: bool) -> None:
    body = (b"0123456789abcdef" * (length // 16 + 1))[:length]
    if chunked:
        pieces = [body[start : start + 5000] for start in range(0, length, 5000)]
        raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        raw = answer(body=body)
    async with http_receiver(says(raw)) as receiver:
        got = await get(receiver.url)
    assert got.body.encode() == body[:LONGEST_BODY]
    assert got.truncated == (length > LONGEST_BODY)


async def test_a_body_without_end_is_cut_off() -> None:
    async with http_receiver(never_ends(HEAD, b"x" * 4096)) as receiver:
        began = time.monotonic()
        got = await get(receiver.url)
        assert time.monotonic() - began < 4
        assert (got.body, got.truncated) == ("x" * LONGEST_BODY, True)
        await asyncio.wait_for(receiver.hung_up.wait(), 3)


@pytest.mark.parametrize(
    "script",
    [
        says(answer(body=gzip.compress(b"0" * 20_000_000), content_encoding="gzip")),
        never_ends(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"0" * 20_000_000)[:-20], b"\0"
        ),
    ],
)
async def test_a_bomb(script: Script) -> None:
    async with http_receiver(script) as receiver:
        got = await get(receiver.url)
        assert (got.body, got.truncated) == ("0" * LONGEST_BODY, True)
        assert receiver.request.headers["accept-encoding"] == "identity"


async def test_compressed_without_being_asked() -> None:
    raw = answer(body=gzip.compress("Grüße".encode() * 1000), content_encoding="gzip", content_type="text/plain")
    async with http_receiver(says(raw)) as receiver:
        assert (await get(receiver.url)).body == "Grüße" * 1000


@pytest.mark.parametrize(
    ("head", "again", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", "too many headers"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 1000, "not HTTP that can be read"),
        (b"HTTP/1.1 200 OK\r\n", b"a" * 1000, "not HTTP that can be read"),
        (b"HTTP/1.1 200 ", b"OK" * 1000, "not HTTP that can be read"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 50, "it sends more than an answer needs"),
        (b"", b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" * 50, "it sends more than an answer needs"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
            b"a=b;" * 100,
            "it sends more than an answer needs",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n", ""),
        (b"", b"\0" * 1000, "not HTTP that can be read"),
    ],
)
async def test_an_answer_that_never_comes_to_an_end(head: bytes, again: bytes, why: str) -> None:
    async with http_receiver(never_ends(head, again)) as receiver:
        began = time.monotonic()
        failure = await fails(receiver.url, timeout_s=20)
        assert time.monotonic() - began < 4  # for how much it is, and not for how long it takes
        assert why in str(failure)
        await asyncio.wait_for(receiver.hung_up.wait(), 3)


async def test_large_headers_are_taken_and_cut() -> None:
    headers = {f"x_{number}": "a" * 3000 for number in range(20)}
    async with http_receiver(says(answer(body=b"ok", content_security_policy="b" * 20_000, **headers))) as receiver:  # type: ignore[arg-type]
        got = await get(receiver.url)
    assert got.body == "ok" and len(got.headers["Content-Security-Policy"]) == 4000
    assert sum(len(name) + len(value) for name, value in got.headers.items()) <= 16 * 1024


async def test_one_byte_chunks() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 70_000 + b"0\r\n\r\n"
    async with http_receiver(says(raw)) as receiver:
        got = await get(receiver.url)
        assert (got.body, got.truncated) == ("x" * LONGEST_BODY, True)


# -- servers that do as they should not ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "why", "body"),
    [
        (cut, "gave no answer: it closed the connection", None),
        (reset, "gave no answer", None),
        (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "is not HTTP that can be read: bad status line", None),
        (says(b"220 mail.example ESMTP\r\n"), "is not HTTP that can be read", None),
        (says(b"HTTP/1.1 200 OK\r\nbroken\x00header\r\n\r\n"), "is not HTTP that can be read", None),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "is not HTTP that can be read", None),
        (
            says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
            "is not HTTP that can be read",
            None,
        ),
        (says(b"HTTP/1.1 9999 OK\r\n\r\n"), "is not HTTP that can be read", None),
        (says(answer(body=b"hal", length=10)), "broke off", "hal"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n5\r\nxx"), "broke off", "hal"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\nzz\r\n"), "", None),
        (says(b"HTTP/1.1 200 OK\r\n"), "gave no answer", None),
    ],
)
async def test_answers_that_are_none(script: Script, why: str, body: str | None) -> None:
    async with http_receiver(script) as receiver:
        failure = await fails(receiver.url)
        assert why in str(failure) and f"127.0.0.1:{receiver.port}" in str(failure) and "\n" not in str(failure)
        assert not failure.is_permanent
    if body is not None:
        assert failure.answer is not None
        assert (failure.answer.status, failure.answer.truncated) == (200, True)
        assert failure.answer.body.startswith(body)


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=latin1", b"Gr\xfc\xdfe", "Grüße"),
        ('text/plain; charset="koi8-r"', "Привет".encode("koi8-r"), "Привет"),
        ("text/plain; charset=utf-16", b"G\x00", "G"),
        ("text/plain; charset=zip", b"a", "a"),
        ("text/plain; charset=", b"\xc3\xbc", "ü"),
        ("text/plain; charset=\xff\xfe", b"\xc3\xbc", "ü"),
        (";;;=;", b"\xc3\xbc", "ü"),
        ("", b"\xc3\xbc", "ü"),
        ("a" * 5000, b"a", "a"),
        ("image/png", b"\x89PNG\r\n\x1a\n\x00\x00", "\ufffdPNG\r\n\ufffd\n\ufffd\ufffd"),
    ],
)
async def test_text(content_type: str, body: bytes, text: str) -> None:
    async with http_receiver(says(answer(body=body, content_type=content_type))) as receiver:
        assert (await get(receiver.url)).body == text


async def test_interim_answers_are_passed_over() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + answer("204 No Content")
    async with http_receiver(says(raw)) as receiver:
        assert (await get(receiver.url)).status == 204


@needs_proc
async def test_an_answer_to_a_request_that_is_not_read_to_its_end() -> None:
    """Nor is anything left of the connection: closing it must not wait until the server takes the rest."""
    async with http_receiver(silent, reads=False) as receiver:
        request = Request(method="POST", url=receiver.url, body=b"x" * 20_000_000, timeout_s=0.5)
        before = _open_sockets()
        with pytest.raises(RequestFailed, match="took too long"):
            await client(LOOPBACK).send(request)
        await asyncio.sleep(0.1)
        assert _open_sockets() <= before + 1  # the receiver's own


async def test_an_early_answer() -> None:
    """The server answers without reading, and keeps the connection open."""
    early = answer("413 Content Too Large", b"no")
    async with http_receiver(silent, reads=False, early=early) as receiver:
        got = await client(LOOPBACK).send(Request(method="POST", url=receiver.url, body=b"x" * 20_000_000, timeout_s=5))
        assert (got.status, got.body) == (413, "no")


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind((LOOPBACK, 0))
        port = unused.getsockname()[1]
        failure = await fails(f"http://127.0.0.1:{port}/")
        names = {"a.example": ["127.0.0.1 127.0.0.2 ::1"]}
        of_several = await fails(f"http://a.example:{port}/", "127.0.0.0/8", "::1", names=names)
    assert str(failure) == f"127.0.0.1:{port} can't be connected to: connection refused"
    assert str(of_several).startswith(f"a.example:{port} can't be connected to: ") and "127.0.0" not in str(of_several)
    assert not failure.is_permanent


async def test_a_name_that_is_not_there() -> None:
    failure = await fails("http://nowhere.example/secret")
    assert str(failure) == "nowhere.example could not be looked up: Name or service not known"
    assert not failure.is_permanent


async def test_a_name_without_addresses() -> None:
    assert "has no address" in str(await fails("http://a.example/", names={"a.example": [""]}))


# -- TLS -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's, with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client holds certificates against."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_tls_by_name_and_by_address(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with http_receiver(
        says(answer(body=b"safe")), tls=server_tls(authority, "a.example", "127.0.0.1")
    ) as receiver:
        http = client(LOOPBACK, names={"a.example": ["127.0.0.1"], "a.example.": ["127.0.0.1"]}, tls=trusting)
        for host in ("a.example", "127.0.0.1", "a.example."):
            got = await http.send(Request(method="POST", url=f"https://{host}:{receiver.port}/", body=b"x" * 50_000))
            assert got.body == "safe"
        assert len(receiver.requests[0].body) == 50_000


async def test_the_systems_trust_store_is_used(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_receiver(says(answer(body=b"safe")), tls=server_tls(authority, "127.0.0.1")) as receiver:
        assert "is not to be trusted" in str(await fails(receiver.url))
        with authority.cert_pem.tempfile() as path:
            monkeypatch.setenv("SSL_CERT_FILE", path)
            assert (await get(receiver.url)).body == "safe"


async def test_a_certificate_for_somebody_else(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with http_receiver(says(answer()), tls=server_tls(authority, "b.example")) as receiver:
        http = client(LOOPBACK, names={"a.example": ["127.0.0.1"]}, tls=trusting)
        with pytest.raises(
            RequestFailed, match=r"The certificate of a\.example:\d+ is not to be trusted: Hostname mismatch"
        ):
            await http.send(Request(method="GET", url=f"https://a.example:{receiver.port}/"))
        assert receiver.requests == []


async def test_a_certificate_of_nobody_that_we_know(trusting: ssl.SSLContext) -> None:
    async with http_receiver(says(answer()), tls=server_tls(trustme.CA(), "127.0.0.1")) as receiver:
        with pytest.raises(RequestFailed, match="is not to be trusted: unable to get local issuer certificate"):
            await client(LOOPBACK, tls=trusting).send(Request(method="GET", url=receiver.url))
        assert receiver.requests == []


async def test_tls_where_there_is_none(trusting: ssl.SSLContext) -> None:
    async with http_receiver(silent, reads=False, early=b"SSH-2.0-OpenSSH_9.6\r\n") as receiver:
        with pytest.raises(RequestFailed, match=r"TLS with 127\.0\.0\.1:\d+ failed: wrong version number"):
            await client(LOOPBACK, tls=trusting).send(
                Request(method="GET", url=receiver.url.replace("http:", "https:"), timeout_s=2)
            )


async def test_no_tls_where_there_is_some(authority: trustme.CA) -> None:
    async with http_receiver(says(answer()), tls=server_tls(authority, "127.0.0.1")) as receiver:
        await fails(receiver.url.replace("https:", "http:"))
        assert receiver.requests == []


async def test_from_http_to_https_and_back(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with http_receiver({"/end": says(answer(body=b"end"))}) as plain:
        safe_tls = server_tls(authority, "127.0.0.1")
        async with http_receiver(redirects("302 F", f"{plain.url}/end"), tls=safe_tls) as safe:
            plain.scripts["/"] = redirects("302 F", safe.url)
            request = Request(method="GET", url=plain.url, headers={"Authorization": SECRET})
            assert (await client(LOOPBACK, tls=trusting).send(request)).body == "end"
    assert "authorization" not in safe.request.headers and "authorization" not in plain.requests[1].headers


async def test_limits_hold_over_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    http = client(LOOPBACK, tls=trusting)
    tls = server_tls(authority, "127.0.0.1")
    scripts = {
        "/body": never_ends(HEAD, b"x" * 4096),
        "/interim": never_ends(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 50),
        "/silent": silent,
    }
    async with http_receiver(scripts, tls=tls) as receiver:
        got = await http.send(Request(method="GET", url=receiver.url + "/body"))
        assert (len(got.body), got.truncated) == (LONGEST_BODY, True)
        with pytest.raises(RequestFailed, match="it sends more than an answer needs"):
            await http.send(Request(method="GET", url=receiver.url + "/interim"))
        with pytest.raises(RequestFailed, match="took too long"):
            await http.send(Request(method="GET", url=receiver.url + "/silent", timeout_s=0.5))


# -- the end of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [silent, writes(HEAD + b"x", 60.0), never_ends(b"", b"HTTP/1.1 102 P\r\n\r\n")])
async def test_cancelling_ends_the_connection_at_once(script: Script) -> None:
    async with http_receiver(script) as receiver:
        sending = asyncio.create_task(get(receiver.url, timeout_s=60))
        await receiver.came.wait()
        await asyncio.sleep(0.02)
        if sending.done():
            return  # the last one: as it floods us, it may be over already
        began = time.monotonic()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert time.monotonic() - began < 2
        await asyncio.wait_for(receiver.hung_up.wait(), 3)


async def test_cancelling_while_a_name_is_looked_up() -> None:
    asked = asyncio.Event()

    async def hangs(_: str) -> Sequence[Address]:
        asked.set()
        await asyncio.sleep(60)
        return []

    sending = asyncio.create_task(
        HttpRequests(Settings(), resolve=hangs).send(Request(method="GET", url="http://a.example/"))
    )
    await asked.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_closing_the_client_fails_what_is_under_way() -> None:
    async with http_receiver(silent) as receiver:
        http = client(LOOPBACK)
        sending = asyncio.create_task(http.send(Request(method="GET", url=receiver.url, timeout_s=60)))
        await receiver.came.wait()
        await http.close()
        with pytest.raises(RequestFailed, match="gave no answer"):
            await asyncio.wait_for(sending, 1)


@needs_proc
async def test_nothing_is_left_open(recwarn: pytest.WarningsRecorder) -> None:
    scripts = {
        "/ok": says(answer(body=b"ok")),
        "/302": redirects("302 Found", "/ok"),
        "/cut": cut,
        "/reset": reset,
        "/endless": never_ends(HEAD, b"x" * 4096),
        "/silent": silent,
        "/junk": says(b"junk\r\n"),
        "/short": says(answer(body=b"x", length=5)),
    }
    warnings.simplefilter("always")
    async with http_receiver(scripts) as receiver:
        http = client(LOOPBACK)

        async def one(path: str) -> None:
            with suppress(RequestFailed):
                await http.send(Request(method="GET", url=receiver.url + path, timeout_s=0.5))

        await asyncio.gather(*map(one, scripts))
        await asyncio.sleep(0.2)
        before = _open_sockets()
        for _ in range(5):
            await asyncio.gather(*map(one, scripts))
        await asyncio.sleep(0.2)
        assert _open_sockets() <= before
        assert http._under_way == set()
    gc.collect()
    await asyncio.sleep(0)
    assert [str(each.message) for each in recwarn if issubclass(each.category, ResourceWarning)] == []


def _open_sockets() -> int:
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except OSError:
            continue
    return found


async def test_no_message_holds_what_may_be_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Path and query (tokens of web hooks stand there), headers, the body of the request."""
    scripts: dict[str, Script] = {
        f"/{SECRET}/{name}": script
        for name, script in {
            "cut": cut,
            "reset": reset,
            "junk": says(b"junk\r\n"),
            "short": says(answer(body=b"x", length=5)),
            "loop": redirects("302 Found", "?again"),
            "file": redirects("302 Found", f"file:///{SECRET}"),
            "private": redirects("302 Found", f"http://10.0.0.1/{SECRET}"),
            "silent": silent,
        }.items()
    }
    async with http_receiver(scripts) as receiver:
        for path in scripts:
            request = Request(
                method="POST",
                url=f"{receiver.url}{path}?token={SECRET}",
                headers={"Authorization": f"Bearer {SECRET}"},
                body=SECRET.encode(),
                timeout_s=0.5,
            )
            assert SECRET not in repr(request)
            with pytest.raises(RequestFailed) as raised:
                await client(LOOPBACK).send(request)
            assert SECRET not in str(raised.value), path
            assert raised.value.__suppress_context__
    assert SECRET not in caplog.text


# -- the system's resolver -------------------------------------------------------------------------------------


async def test_the_systems_resolver() -> None:
    resolve = SystemResolver()
    assert ipaddress.ip_address("127.0.0.1") in await resolve("localhost")
    assert await resolve("127.0.0.1") == [ipaddress.ip_address("127.0.0.1")]


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "\ud800", "", "a\x00b"])
async def test_what_it_cannot_look_up_is_an_os_error(name: str) -> None:
    with pytest.raises(OSError):
        await asyncio.wait_for(SystemResolver()(name), 10)


async def test_more_look_ups_than_may_be_at_once() -> None:
    resolve = SystemResolver(most_at_once=2)
    got = await asyncio.gather(*(resolve("localhost") for _ in range(50)))
    assert len(got) == 50 and all(got)
    # Those that nobody waits for any longer give their places back as well.
    tasks = [asyncio.create_task(resolve("localhost")) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await asyncio.wait_for(resolve("localhost"), 5)


async def test_with_the_systems_resolver_localhost_is_refused_too() -> None:
    async with http_receiver(says(answer())) as receiver:
        http = HttpRequests(Settings())
        for name in ("localhost", "ip6-localhost", "localhost.localdomain", socket.gethostname()):
            with pytest.raises(RequestFailed):
                await http.send(Request(method="GET", url=f"http://{name}:{receiver.port}/", timeout_s=2))
        assert receiver.connections == 0
