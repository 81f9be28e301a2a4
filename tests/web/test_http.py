"""HTTP itself: errors from every path, headers, limits, methods; with the protocol spoken by hand where a
client would not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import orjson
import pytest

from tests.web.conftest import Service, assert_problem, start


async def raw(service: Service, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; returns status, headers and body of the first answer."""
    parts = urlsplit(service.base)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(sent)
        await writer.drain()
        status, headers = await head_of(reader)
        return status, headers, await reader.readexactly(int(headers.get("content-length", "0")))
    finally:
        writer.close()


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers (names in lower case) of the next answer."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    lines = head.decode("latin-1").split("\r\n")
    headers = (line.split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value for name, value in headers}


async def test_an_unknown_address_and_an_unknown_method(service: Service) -> None:
    assert_problem(await service.nobody("GET", "//nowhere"), 404, "not_found")
    assert_problem(await service.nobody("GET", "/nowhere?x=%00"), 404, "not_found")
    refused = await service.nobody("DELETE", "/auth/login")
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["Allow"] == "POST"
    assert "GET" in (await service.nobody("PATCH", "//healthz")).headers["Allow"]


async def test_the_headers_that_are_always_there(service: Service) -> None:
    for answer in (
        await service.nobody("GET", "//healthz", headers={"X-Request-ID": "my.id_1-2"}),
        await service.nobody("GET", "//nowhere", headers={"X-Request-ID": "my.id_1-2"}),
    ):
        assert answer.headers["X-Request-ID"] == "my.id_1-2"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "Strict-Transport-Security" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers
    for bad in ("x" * 129, "a b", "é", ""):
        made = (await service.nobody("GET", "//healthz", headers={"X-Request-ID": bad})).headers["X-Request-ID"]
        assert made != bad and 1 <= len(made) <= 128


async def test_head_is_get_without_the_body(service: Service) -> None:
    alice = await service.person()
    got, head = await alice("GET", "/users/me"), await alice("HEAD", "/users/me")
    assert head.status == 200 and head.raw == b""
    assert head.headers["ETag"] == got.headers["ETag"]
    assert head.headers["Content-Length"] == got.headers["Content-Length"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        b"GET /" + b"y" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
    ],
)
async def test_what_is_not_http(service: Service, sent: bytes) -> None:
    status, headers, body = await raw(service, sent + b"\r\n\r\n")
    assert status == 400
    assert headers["content-type"].startswith("application/problem+json")
    assert json.loads(body)["code"] == "bad_request"
    assert json.loads(body)["request_id"] == headers["x-request-id"]
    assert b"Traceback" not in body


async def test_an_expectation_that_nobody_meets(service: Service) -> None:
    status, headers, body = await raw(service, b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n")
    assert status == 417 and json.loads(body)["status"] == 417
    assert headers["x-request-id"] == json.loads(body)["request_id"]


async def test_bodies_larger_than_a_mebibyte(service: Service) -> None:
    headers = {"Content-Type": "application/json"}
    big = b'{"email": "' + b"x" * (1024 * 1024) + b'"}'
    assert_problem(await service.nobody("POST", "/auth/login", data=big, headers=headers), 413, "too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for start_at in range(0, len(big), 65536):
            yield big[start_at : start_at + 65536]

    assert_problem(await service.nobody("POST", "/auth/login", data=chunks(), headers=headers), 413, "too_large")
    announced = (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n"
    )
    status, _, body = await raw(service, announced)
    assert status == 413 and json.loads(body)["code"] == "too_large"


async def test_chunks_that_are_none(service: Service) -> None:
    sent = (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n\r\n"
    )
    status, _, body = await raw(service, sent)
    assert status == 400 and json.loads(body)["type"].startswith("urn:punctual:error:")


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Content-Length: 2, 3\r\n\r\n{}",
        b"Content-Length: +2\r\n\r\n{}",
        b"Content-Length: -2\r\n\r\n{}",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 2\r\n X: y\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    ],
)
async def test_lengths_that_contradict_each_other(service: Service, framing: bytes) -> None:
    """What one server takes for a body and the next for a request (RFC 9112, 11.2): nothing behind it is served."""
    head = b"POST /api/v1/auth/logout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    parts = urlsplit(service.base)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(head + framing + smuggled)
        answers = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    assert answers.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answers
    assert answers.count(b"HTTP/1.") == 1 and b'"status":"ok"' not in answers


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize(
    ("data", "media_type", "status", "code"),
    [
        (b"", "application/json", 400, "malformed_body"),
        (b"", None, 400, "malformed_body"),
        (b"  \n", "application/json", 400, "malformed_body"),
        (b"{}", None, 415, "unsupported_media_type"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "application/json; charset=utf-16", 415, "unsupported_media_type"),
        (b"{}", "nonsense", 415, "unsupported_media_type"),
        (b"{", "application/json", 400, "malformed_body"),
        (b'{"email": "a\xff"}', "application/json", 400, "malformed_body"),
        (b'{"email": "\\ud800"}', "application/json", 400, "malformed_body"),
        (b'{"email": NaN}', "application/json", 400, "malformed_body"),
        (b'{"email": Infinity}', "application/json", 400, "malformed_body"),
        (b"[" * 100_000, "application/json", 400, "malformed_body"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "application/json", 400, "malformed_body"),
        (b"\xef\xbb\xbf{}", "application/json", 400, "malformed_body"),
        ('{"a":1}'.encode("utf-16"), "application/json", 400, "malformed_body"),
        (b"[]", "application/json", 422, "validation_failed"),
        (b"null", "application/json", 422, "validation_failed"),
        (b'"text"', "application/json", 422, "validation_failed"),
        (b"%ff=1", "application/x-www-form-urlencoded", 400, "malformed_body"),
        (b"email=a&password=b&more=c", "application/x-www-form-urlencoded", 422, "validation_failed"),
    ],
)
async def test_bodies_that_are_no_json_object(
    service: Service, data: bytes, media_type: str | None, status: int, code: str
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    skip = () if media_type else ("Content-Type",)
    answer = await service.nobody("POST", "/auth/login", data=data, headers=headers, skip_auto_headers=skip)
    assert_problem(answer, status, code)


async def test_of_equal_keys_the_last_wins_and_errors_are_named(service: Service) -> None:
    body = b'{"email": "x", "email": 1, "zebra/~": {}, "name": "\\u0000"}'
    answer = await service.nobody("POST", "/auth/signup", data=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "validation_failed")
    errors = {error["field"]: error["code"] for error in answer.json["errors"]}
    assert errors == {
        "/email": "wrong_type",
        "/password": "required",
        "/name": "control_character",
        "/zebra~1~0": "unknown_field",
    }


async def test_an_answer_names_only_the_first_faults(service: Service) -> None:
    body = orjson.dumps({f"unknown{number}": number for number in range(20_000)})
    answer = await service.nobody("POST", "/auth/login", data=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "validation_failed")
    assert len(answer.raw) < 20_000


async def test_unknown_query_parameters(service: Service) -> None:
    alice = await service.person()
    answer = await alice("GET", "/users/me?page=2")
    assert_problem(answer, 422, "validation_failed")
    assert answer.json["errors"][0]["field"] == "?page"


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer " + "x" * 7000,
        "Bearer é",
        "bearer\tx",
    ],
)
async def test_credentials_that_are_none(service: Service, given: str | None) -> None:
    headers = {"Authorization": given} if given is not None else {}
    answer = await service.nobody("GET", "/users/me", headers=headers)
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_token_with_another_algorithm_or_key(service: Service) -> None:
    import jwt

    alice = await service.person()
    assert alice.token is not None
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(alice.token)["kid"]
    forged = [
        jwt.encode(claims, "", algorithm="none", headers={"kid": kid, "typ": "at+jwt"}),
        jwt.encode(claims, "k" * 64, algorithm="HS256", headers={"kid": kid, "typ": "at+jwt"}),
        jwt.encode(claims, "k" * 64, algorithm="HS512", headers={"kid": kid, "typ": "at+jwt"}),
        alice.token[:-4] + "AAAA",
    ]
    for token in forged:
        alice.token = token
        assert_problem(await alice("GET", "/users/me"), 401, "unauthenticated")


async def test_cors_for_the_listed_origins_only(service: Service) -> None:
    runner, base = await start(
        service.settings.model_copy(update={"cors_origins": ("https://app.example",)}), service.database
    )
    try:
        caller = service.nobody
        caller.base = base
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "PATCH"}
        preflight = await caller("OPTIONS", "/users/me", headers=asked)
        assert preflight.status == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert preflight.headers["Access-Control-Max-Age"] == "600"
        assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        refused = await caller("GET", "/users/me", headers={"Origin": "https://app.example"})
        assert refused.status == 401 and "ETag" in refused.headers["Access-Control-Expose-Headers"]
        other = await caller("OPTIONS", "/users/me", headers=asked | {"Origin": "https://evil.example"})
        assert other.status == 405 and "Access-Control-Allow-Origin" not in other.headers
        assert other.headers["Vary"] == "Origin"
    finally:
        await runner.cleanup()


async def test_trusted_proxies_say_who_calls(service: Service) -> None:
    from sqlalchemy import select

    from models import Session

    settings = service.settings.model_copy(update={"trusted_proxies": ("127.0.0.0/8", "10.0.0.1")})
    runner, base = await start(settings, service.database)
    try:
        service.nobody.base = base
        body = {"email": "p@example.com", "password": "correct horse battery", "name": "P"}
        headers = {"X-Forwarded-For": "1.2.3.4, 203.0.113.7, 10.0.0.1", "X-Forwarded-Proto": "https"}
        answer = await service.nobody("POST", "/auth/signup", json=body, headers=headers)
        assert answer.status == 201
        assert answer.headers["Strict-Transport-Security"]
        async with service.database.read() as session:
            assert (await session.execute(select(Session.ip))).scalar_one() == "203.0.113.7"
    finally:
        await runner.cleanup()
