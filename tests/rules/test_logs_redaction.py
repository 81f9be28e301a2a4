"""Secrets and personal data stay out of the log, whatever somebody logs; what operators need stays in it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.run import RunState
from scheduler.logs import E_MAIL, LONGEST_VALUE, PHONE, REDACTED, get_logger, redact
from scheduler.logs.redaction import DEEPEST, LONGEST_RECORD, MOST_ITEMS
from tests.rules.process_logging import process_logging

SECRET = "hunter2-correct-horse"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLW91cnM"
OWN_TOKEN = "pun_r_0aQx7Lz93kfDpWm2Ty"
KEY_BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"
PRIVATE_KEY = f"-----BEGIN PRIVATE KEY-----\n{KEY_BODY}\nx7Lz93kfDpWm2Ty==\n-----END PRIVATE KEY-----"
ADDRESS = "alice.liddell+x@mail.example.org"
NUMBER = "+4915123456789"
ID = UUID("0190c2a0-1b2c-7def-8abc-0123456789ab")


def logged(**fields: Any) -> str:
    """What is left of the fields, as the JSON of the line."""
    return orjson.dumps(redact(None, "info", {"event": "something.happened", **fields})).decode()


def said(text: str) -> str:
    """What is left of a text."""
    return str(redact(None, "info", {"event": "x", "text": text})["text"])


# -- by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "new_password",
        "password_hash",
        "current_password",
        "passwd",
        "pwd",
        "passphrase",
        "secret",
        "secret_key",
        "PUNCTUAL_SECRET_KEY",
        "token",
        "access_token",
        "refresh_token",
        "metrics_token",
        "token_2",
        "authorization",
        "Authorization",
        "auth",
        "basicAuth",
        "cookie",
        "otp",
        "otp_code",
        "totp_secret",
        "totp",
        "otpauth_uri",
        "recovery_code",
        "recovery_codes",
        "recoveryCodes",
        "backup-codes",
        "verification_code",
        "sms_code",
        "2fa_code",
        "api_key",
        "apikey",
        "private_key",
        "signing_keys",
        "jwt",
        "csrf",
        "credentials",
        "aws_secret_access_key",
        "signature",
        "ticket",
        # As headers, and as other languages, spell them.
        "Set-Cookie",
        "Proxy-Authorization",
        "X-Api-Key",
        "X-API-KEY",
        "X-CSRF-Token",
        "accessToken",
        "refreshToken",
        "apiKey",
        "APIKey",
        "SecretAccessKey",
        "http.request.header.authorization",
        "user[password]",
        "pass word",
        "PassWord",
        "accesstoken",
        "dbpassword",
        "ｐａｓｓｗｏｒｄ",
        "pass\u200bword",
        # More than one of them.
        "tokens",
        "passwords",
        "password1",
        "secret_keys",
        "cookies",
    ],
)
def test_what_a_name_gives_away(name: str) -> None:
    for fields in (
        {name: SECRET},
        {name: 481516},
        {name: 4.81516},
        {"data": {name: SECRET}},
        {"data": {name: 481516}},
        {"data": [{"deep": ({name: SECRET},)}]},
        {"data": MappingProxyType({name: SECRET})},
        {"headers": [(name, SECRET)]},
        {"headers": [[name.encode(), SECRET.encode()]]},
        {name: [SECRET]},
        {name: {"value": SECRET}},
        {name: SECRET.encode()},
        {name: bytearray(SECRET.encode())},
        {name: {SECRET}},
    ):
        line = logged(**fields)
        assert SECRET not in line and "81516" not in line, line


@pytest.mark.parametrize(
    "name",
    [
        "email",
        "e-mail",
        "userEmail",
        "recipient",
        "recipients",
        "phone",
        "phone_number",
        "last_name",
        "subject",
        "body",
    ],
)
def test_what_a_name_says_is_personal(name: str) -> None:
    for value in ("Alice", ["Alice"], {"who": "Alice"}, {"who": ["Alice"]}, b"Alice", {"Alice"}):
        assert "Alice" not in logged(**{name: value})
        assert "Alice" not in logged(data={name: value})
    assert "4915123456789" not in logged(**{name: 4915123456789})


@pytest.mark.parametrize(
    "name",
    [
        *("title", "kind", "tokenizer", "secretary", "count", "passenger", "kid", "author", "authority", "codes"),
        *("key", "keys", "unique_key", "public_key", "idempotency_key", "code", "status_code", "error_code"),
        *("session_id", "user_id", "email_id", "message_id", "request_id", "name", "passed", "compass"),
        *("bodyguard", "subjects_seen", "mobility", "phonetic"),
    ],
)
def test_what_a_name_does_not_give_away(name: str) -> None:
    assert "plain words" in logged(**{name: "plain words"})
    assert "plain words" in logged(data={name: "plain words"})


def test_counts_are_no_secret_though_what_they_count_is() -> None:
    event = redact(None, "info", {"event": "x", "emails": 250, "result": {"emails": {"dead": 3}}, "body": 65536})
    assert (event["emails"], event["result"], event["body"]) == (250, {"emails": {"dead": 3}}, 65536)


# -- by look -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"can't connect to mysql://punctual:{SECRET}@db/punctual",
        f"redis://:{SECRET}@localhost:6379/0",
        f"https://{SECRET}@git.example.org/x.git",
        f"smtps://alice%40example.org:{SECRET}@mail.example.org:465",
        f"smtp://alice:{SECRET}:more@mail.example.org and so on",
        f"mysql://alice:with/a/slash{SECRET}@db",
        f"two: mysql://a:{SECRET}@db, redis://b:{SECRET}@cache",
        f"http://host:8080/path then http://a:{SECRET}@host",
        # Headers.
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer {SECRET}",
        f"Authorization: Token {SECRET}",
        f"Proxy-Authorization: Basic {SECRET}",
        f"Basic {SECRET}",
        f"Cookie: theme=dark; session={SECRET}",
        f'Cookie: theme="dark"; session="{SECRET}"',
        f"Set-Cookie: session={SECRET}; HttpOnly",
        f"X-Api-Key: {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}', 'Accept': '*/*'}}",
        f"[(b'authorization', b'Bearer {SECRET}'), (b'host', b'x')]",
        f"<CIMultiDictProxy('Host': 'x', 'Cookie': 'a={SECRET}')>",
        # Links, forms, settings.
        f"GET /act/verify?token={SECRET}",
        f"GET /act/verify?a=1&token={SECRET}&b=2",
        f"https://tasks.example.org/act/done?token={SECRET}",
        f"https://tasks.example.org/x?next=%2Fy%3Ftoken%3D{SECRET}",
        f"wss://tasks.example.org/api/v1/ws?ticket={SECRET}",
        f"https://tasks.example.org/calendar/{SECRET}.ics",
        f"https://bucket.example.org/x?X-Amz-Signature={SECRET}&a=b",
        f"email=alice&password={SECRET}",
        f"PUNCTUAL_SECRET_KEY={SECRET}",
        f"aws_secret_access_key = {SECRET}",
        f"password: {SECRET}, user: bob",
        f"password: correct {SECRET} battery",
        f"passphrase = several words {SECRET} and more user=bob",
        f"--password={SECRET} --host x",
        f"identified with password '{SECRET}', password='{SECRET}'",
        f"otp={SECRET}",
        f"recovery codes: {SECRET}",
        f"recovery_codes=['aaaa-bbbb', '{SECRET}']",
        f"otpauth://totp/Punctual:alice?secret={SECRET}&issuer=Punctual",
        # What prints itself.
        f"Settings(host='127.0.0.1', secret_keys=('{SECRET}', 'b'), port=8080)",
        f"Client(api_key='{SECRET}')",
        f"Tokens(access_token=Secret('{SECRET}'), n=1)",
        f"{{'token': b'{SECRET}'}}",
        f"{{'password': {{'old': '{SECRET}', 'new': 'x'}}}}",
        # JSON in text, and within itself.
        f'{{"user": "bob", "password": "{SECRET}"}}',
        f'{{"password":"with a \\"quote\\" {SECRET}"}}',
        json.dumps({"body": json.dumps({"api_key": SECRET, "n": 1})}),
        json.dumps({"a": json.dumps({"b": json.dumps({"token": SECRET})})}),
        json.dumps({"tokens": [SECRET, "b"]}),
        # Errors of libraries.
        f"(1062, 'x')\n[SQL: INSERT INTO t VALUES (%s)]\n[parameters: ('{SECRET}', 'b')]\n(Background on this error)",
        # By themselves.
        f"pun_r_{SECRET}",
        f"the token pun_a_{SECRET} was used",
        f"whsec_{SECRET}",
        f"sk_live_{SECRET}",
        f"github_pat_{SECRET.replace('-', '_')}{SECRET}",
        f"$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ${SECRET}",
    ],
)
def test_what_a_text_gives_away(text: str) -> None:
    for fields in (
        {"error": text},
        {"event": text},
        {"data": {"deep": [text]}},
        {"data": {text: 1}},
        {"data": text.encode()},
        {"exception": "Traceback …\n" + text},
        {"text": text + " and a long tail" * 20},
        {"text": "a long beginning, " * 20 + text},
        {"text": "İstanbul " + text},
        {"reason": ValueError(text)},
    ):
        line = logged(**fields)
        assert SECRET not in line and SECRET.replace("-", "_") not in line, line


@pytest.mark.parametrize("secret", [JWT, OWN_TOKEN, PRIVATE_KEY, ADDRESS, NUMBER])
@pytest.mark.parametrize(
    "text",
    ["{}", "({})", "<{}>", '"{}"', "a {} b", "x={}", "x:{}", "{},{}", "[{}]", "\n{}\n", "é{}é" if False else "é {} é"],
)
def test_what_is_known_by_itself(secret: str, text: str) -> None:
    left = said(text.replace("{}", secret))
    for part in (secret, secret.split("@")[0], KEY_BODY, JWT.split(".")[2], NUMBER[3:]):
        if part in secret:
            assert part not in left


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 <alice@example.org>: Recipient address rejected",
        "(1062, \"Duplicate entry 'alice@example.org' for key 'uq_user_email'\")",
        "mailto:alice@example.org?subject=x",
        "https://x.example.org/?email=alice%40example.org&a=b",
        '"alice liddell"@example.org',
        "alice@bücher.example and alice@xn--bcher-kva.example",
        "o'alice@example.org",
        "alice@[192.0.2.7]",
        "ALICE@EXAMPLE.ORG".replace("ALICE", "alice"),
    ],
)
def test_addresses(text: str) -> None:
    left = said(text)
    assert "alice" not in left and E_MAIL in left


@pytest.mark.parametrize(
    "text",
    ["call +49 151 2345 6789", "tel:+4915123456789", "(+1 (555) 012-3456)", "%2B4915123456789", "x,+15550123456"],
)
def test_phone_numbers(text: str) -> None:
    left = said(text)
    assert PHONE in left and "3456" not in left


@pytest.mark.parametrize(
    "text",
    [
        str(ID),
        f"<{ID}@tasks.example.org>",
        f"Message-ID: <{ID}@tasks.example.org>",
        f"/api/v1/tasks/{ID}/reminders?limit=50&cursor=WzEyM10",
        "2026-11-20T07:22:00+02:00",
        "2026-11-20T07:22:00.123456Z",
        "4915123456789",
        "1.5e+1000000000",
        "run.succeeded",
        "send_emails",
        "worker-1.example.org:4711:a1b2",
        "192.0.2.7",
        "2001:db8::7",
        "root@localhost",
        "Access denied for user 'punctual'@'db'",
        "https://medium.com/@somebody/a-title",
        "https://example.org:8443/a?b=c#d",
        "redis://localhost:6379/0",
        "npm i package@1.2.3",
        "KeyError: 'reminder_id'",
        "Unexpected keyword: argument",
        "the secretary: said so",
        "passed: 3, failed: 4",
        "error code: 5, status_code=404, exit code=1",
        "basic understanding, Basic Authentication",
        "the bearer of news",
        "no such table: one_time_token",
        "Pay the rent, 12:30",
        'File "/srv/punctual/scheduler/runs/settle.py", line 12, in settle',
        "0123456789abcdef0123456789abcdef",
        "Cannot connect to host db:3306 ssl:default [Connect call failed ('127.0.0.1', 3306)]",
    ],
)
def test_what_operators_need_stays(text: str) -> None:
    assert said(text) == text
    assert (
        said("that: " + text + ", and so on, and on, and on, and on")
        == f"that: {text}, and so on, and on, and on, and on"
    )
    assert redact(None, "info", {"event": text})["event"] == text


def test_a_message_can_be_followed() -> None:
    """By anybody's Message-ID, under its own name."""
    event = redact(None, "info", {"event": "email.deferred", "message_id": f"<{ID}@host.example.org>", "email_id": ID})
    assert event["message_id"] == f"<{ID}@host.example.org>"
    assert event["email_id"] == str(ID)


def test_a_cut_leaves_no_half_of_a_secret() -> None:
    for length in range(LONGEST_VALUE - len(PRIVATE_KEY) - 5, LONGEST_VALUE + 5, 7):
        for secret, part in ((PRIVATE_KEY, KEY_BODY[:12]), (JWT, "eyJhbGci"), (f"token={SECRET}", SECRET[:6])):
            text = "a " * (length // 2) + secret
            for fields in ({"text": text + " b" * LONGEST_VALUE}, {"exception": secret + " b" * (length // 2)}):
                assert part not in logged(**fields)


# -- whatever it is ------------------------------------------------------------------------------------------


def test_long_values_are_cut_at_the_end_tracebacks_at_the_beginning() -> None:
    long = "a" * LONGEST_VALUE + "end"
    event = redact(None, "info", {"event": "x", "text": long, "exception": long})
    assert event["text"] == "a" * LONGEST_VALUE + "…"
    assert event["exception"].endswith("end") and len(event["exception"]) == LONGEST_VALUE + 1


def test_what_is_large_or_deep_is_cut() -> None:
    deep: Any = "bottom"
    for _ in range(DEEPEST + 5):
        deep = [deep]
    event = redact(
        None, "info", {"event": "x", "deep": deep, "long": list(range(10**6)), "wide": dict.fromkeys(range(500))}
    )
    assert "bottom" not in str(event["deep"])
    assert event["long"][:MOST_ITEMS] == list(range(MOST_ITEMS)) and event["long"][-1] == "… 999900 more"
    assert len(event["wide"]) == MOST_ITEMS + 1
    large = {str(place): ["x" * 500] * 50 for place in range(50)}
    assert len(logged(a=large, b=large)) < 2 * LONGEST_RECORD
    loop: list[Any] = []
    loop.append(loop)
    assert "…" in logged(loop=loop)


class _Odd:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_kinds() -> None:
    event = redact(
        None,
        "info",
        {
            "event": "x",
            "id": ID,
            "at": datetime(2026, 3, 2, 12, tzinfo=UTC),
            "state": RunState.FAILED,
            "odd": _Odd(),
            "bytes": b"\xff\x00",
            "none": None,
            "true": True,
            "large": 2**70,
            "nested": {1: {"x"}, None: _Odd()},
        },
    )
    assert event == {
        "event": "x",
        "id": str(ID),
        "at": "2026-03-02T12:00:00+00:00",
        "state": "failed",
        "odd": "<_Odd>",
        "bytes": "\ufffd\x00",
        "none": None,
        "true": True,
        "large": str(2**70),
        "nested": {"1": ["x"], "None": "<_Odd>"},
    }
    assert type(event["state"]) is str


_JSONABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.uuids() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.text()),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSONABLE))
def test_redaction_takes_anything(fields: dict[str, Any]) -> None:
    event = redact(None, "info", {"event": "x", **fields})
    assert event.keys() == {"event", *fields}
    orjson.dumps({key.encode("utf-8", "replace").decode(): value for key, value in event.items()})


_AROUND = st.text(st.sampled_from("abc XYZ 019 .,:;=?&/\\'\"[](){}<>@%+-_\n\téß☃")) | st.text()


@given(
    before=_AROUND,
    after=_AROUND,
    said=st.sampled_from(
        [
            "password='{}'",
            '"token": "{}"',
            "Authorization: Bearer {}",
            "mysql://user:{}@host/db",
            "pun_access_{}",
            "?token={}",
            "secret_key={}",
        ]
    ),
)
def test_a_secret_is_found_wherever_it_stands(before: str, after: str, said: str) -> None:
    secret = "Zq7Kx9Wv3Tn5Rm1P"
    # What stands right before must not make another word of the name: that is another text.
    text = f"{before} {said.format(secret)}\n{after}"
    assert secret not in logged(text=text)
    assert secret not in logged(data={"inner": [text]})


@given(
    st.uuids(), st.datetimes(timezones=st.just(UTC)), st.integers(), st.sampled_from(["job", "state", "reminder_id"])
)
def test_ids_instants_and_numbers_are_left_alone(id: UUID, at: datetime, number: int, name: str) -> None:
    for value in (str(id), at.isoformat(), str(number), id.hex):
        assert redact(None, "info", {"event": "x", name: value})[name] == value


@pytest.mark.parametrize(
    "text",
    [
        *("://", "://:", "a@", "password=", "password: a ", "+1", '\\"', "key:", "api_key:", "eyJ", "a.b@", "token=("),
        *('token="', 'token=\\"', "authorization:", "cookie: 'a", "basic ", "-----BEGIN ", "[parameters: ", "é@é."),
        *("alice%", "İ", "%40", "(", "a", " ", "\n", "://a:b", "$argon2", "pwd: ", "bearer "),
    ],
)
def test_no_text_holds_up_the_process(text: str) -> None:
    """A regular expression that goes back and forth would take minutes for some of these."""
    began = time.perf_counter()
    logged(text=text * (200_000 // len(text)), exception=text * (200_000 // len(text)))
    assert time.perf_counter() - began < 0.5


def test_lines_of_libraries_and_tracebacks() -> None:
    import logging

    with process_logging() as stream:
        logging.getLogger("aiomysql").warning("no mysql://a:%s@db for %s", SECRET, ADDRESS)
        logging.getLogger("aiohttp.access").error("%(token)s", {"token": f"token={SECRET}"})
        try:
            try:
                raise ValueError(f"redis://user:{SECRET}@cache")
            except ValueError as error:
                raise RuntimeError(f"for {ADDRESS}") from error
        except RuntimeError as error:
            get_logger("here").exception("something.failed")
            get_logger("here").error("something.failed", exc_info=error)
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["warning", "error", "error", "error", "error"]
    assert sum("RuntimeError: for [e-mail]" in line.get("exception", "") for line in lines) == 3
    assert SECRET not in stream.getvalue() and "alice" not in stream.getvalue()
    assert lines[0]["event"] == f"no mysql://{REDACTED}@db for {E_MAIL}"
