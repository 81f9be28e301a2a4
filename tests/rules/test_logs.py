"""Logs: secrets stay out of them, whatever somebody logs, and no record can hold up the others."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.identifiers import new_id
from scheduler.logs import KEPT, LONGEST_VALUE, REDACTED, RecordKeeper, get_logger, records, redact
from tests.rules.process_logging import process_logging

SECRET = "hunter2-correct-horse"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLW91cnM"


def logged(**fields: Any) -> str:
    return str(redact(None, "info", {"event": "something.happened", **fields}))


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "new_password",
        "password_hash",
        "current_password",
        "passwd",
        "secret",
        "secret_key",
        "PUNCTUAL_SECRET_KEY",
        "token",
        "access_token",
        "refresh_token",
        "metrics_token",
        "authorization",
        "Authorization",
        "cookie",
        "otp",
        "api_key",
        "apikey",
        "private_key",
        # As headers, and as other languages, spell them.
        "Set-Cookie",
        "Proxy-Authorization",
        "X-Api-Key",
        "accessToken",
        "refreshToken",
        "apiKey",
        # More than one of them.
        "tokens",
        "passwords",
        "secret_keys",
        "cookies",
    ],
)
def test_what_a_name_gives_away(name: str) -> None:
    for fields in (
        {name: SECRET},
        {"data": {name: SECRET}},
        {"data": [{"deep": ({name: SECRET},)}]},
        {name: [SECRET]},
        {name: {"value": SECRET}},
        {name: SECRET.encode()},
    ):
        assert SECRET not in logged(**fields)


@pytest.mark.parametrize("name", ["title", "kind", "tokenizer", "secretary", "count", "passenger", "kid"])
def test_what_a_name_does_not_give_away(name: str) -> None:
    assert "plain words" in logged(**{name: "plain words"})


@pytest.mark.parametrize(
    "text",
    [
        f"can't connect to mysql://punctual:{SECRET}@db/punctual",
        f"redis://:{SECRET}@localhost:6379/0",
        f"smtps://alice%40example.org:{SECRET}@mail.example.org:465",
        f"smtp://alice:{SECRET}:more@mail.example.org and so on",
        f"two: mysql://a:{SECRET}@db, redis://b:{SECRET}@cache",
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer {SECRET}",
        f"Basic {SECRET}",
        f"GET /act/verify?token={SECRET}",
        f"GET /act/verify?a=1&token={SECRET}&b=2",
        f"https://tasks.example.org/act/done?token={SECRET}",
        f"pun_r_{SECRET}",
        f"the token pun_a_{SECRET} was used",
    ],
)
def test_what_a_text_gives_away(text: str) -> None:
    for fields in ({"error": text}, {"data": {"deep": [text]}}, {"exception": "Traceback …\n" + text}):
        assert SECRET not in logged(**fields)


def test_a_jwt_anywhere() -> None:
    assert JWT.split(".")[2] not in logged(note=f"sent {JWT} to them", more=[JWT])


@pytest.mark.parametrize(
    "value",
    [
        ValueError(f"mysql://a:{SECRET}@db"),
        {f"redis://x:{SECRET}@cache"},
        f"Bearer {SECRET}".encode(),
    ],
)
def test_what_is_no_text_is_written_as_text_and_gives_nothing_away_either(stream: io.StringIO, value: object) -> None:
    get_logger("test").warning("something.happened", value=value)
    assert "something.happened" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_long_values_are_cut_at_the_end_tracebacks_at_the_beginning() -> None:
    long = "a" * LONGEST_VALUE + "end"
    event = redact(None, "info", {"event": "x", "text": long, "exception": long})
    assert event["text"] == "a" * LONGEST_VALUE + "…"
    assert event["exception"].endswith("end") and len(event["exception"]) == LONGEST_VALUE + 1


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5)))
def test_redaction_takes_anything(fields: dict[str, Any]) -> None:
    event = redact(None, "info", {"event": "x", **fields})
    assert event.keys() == {"event", *fields}


# -- written out ---------------------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with process_logging() as stream:
        yield stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    get_logger("here").info("something.happened", title="two\nlines", reminder_id=new_id(), password=SECRET)
    (line,) = lines(stream)
    assert line.keys() == {"timestamp", "level", "event", "logger", "title", "reminder_id", "password"}
    assert (line["level"], line["event"], line["logger"]) == ("info", "something.happened", "here")
    assert line["title"] == "two\nlines" and line["password"] == REDACTED
    assert line["timestamp"].endswith("Z")


def test_libraries_write_the_same_lines_and_keep_the_same_secrets(stream: io.StringIO) -> None:
    logging.getLogger("aiomysql").warning("no mysql://a:%s@db", SECRET)
    logging.getLogger("aiomysql").info("too much")
    (line,) = lines(stream)
    assert (line["logger"], line["level"]) == ("aiomysql", "warning")
    assert SECRET not in stream.getvalue()


def test_an_exception_is_written_without_its_secrets(stream: io.StringIO) -> None:
    try:
        raise ValueError(f"redis://user:{SECRET}@cache")
    except ValueError:
        get_logger("here").exception("something.failed")
    (line,) = lines(stream)
    assert "ValueError" in line["exception"] and SECRET not in stream.getvalue()


@pytest.mark.parametrize(
    "value", ["\udc80 lone surrogate", {1: "a", None: "b"}, {"\udcff": 1}, object(), 2**70, float("nan")]
)
def test_a_value_that_json_cannot_hold_is_no_error(stream: io.StringIO, value: object) -> None:
    """Logging must never break the work: messages of libraries hold undecodable bytes as surrogates."""
    get_logger("here").info("something.happened", value=value)
    (line,) = lines(stream)
    assert line["event"] == "something.happened"


def test_what_belongs_to_a_run_is_kept_without_secrets(stream: io.StringIO) -> None:
    run_id, user_id = new_id(), new_id()
    get_logger("here").info("no.run")
    get_logger("here").warning(
        "in.run", run_id=str(run_id), job="reap", user_id=str(user_id), token=SECRET, extra={"a": 1}
    )
    (kept,) = records._records
    assert (kept["run_id"], kept["user_id"], kept["job"]) == (run_id, user_id, "reap")
    assert (kept["event"], kept["level"], kept["logger"]) == ("in.run", "warning", "here")
    assert kept["data"]["extra"] == {"a": 1} and kept["data"]["token"] == REDACTED


def test_a_full_keeper_drops_and_counts() -> None:
    keeper = RecordKeeper()
    event = {"timestamp": "2026-03-02T12:00:00Z", "event": "x", "run_id": str(new_id())}
    for _ in range(KEPT + 3):
        keeper.keep(event)
    assert (len(keeper._records), keeper.dropped) == (KEPT, 3)
