"""Cursors: opaque to clients, so whatever a client makes up is a bad cursor and nothing worse."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import BadCursor
from scheduler.identifiers import new_id, parse_id
from scheduler.paging import decode_cursor, encode_cursor

NOW = datetime(2026, 3, 2, 12, 0, 0, 1, tzinfo=UTC)
ID = "019ca000-0000-7000-8000-000000000000"
KINDS: list[tuple[type, ...]] = [(datetime, UUID), (UUID,), (int, datetime, UUID)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def cursor_of(value: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


@given(st.datetimes(timezones=st.just(UTC)), st.uuids(), st.integers(-(2**63), 2**63 - 1))
def test_round_trip(instant: datetime, row_id: UUID, number: int) -> None:
    cursor = encode_cursor(number, instant, row_id)
    assert decode_cursor(cursor, int, datetime, UUID) == [number, instant, row_id]
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "====",
        "a",
        "!!!!",
        "é",
        "\udc80",
        "\x00",
        "💥" * 50,
        "A" * 100_000,
        cursor_of({}),
        cursor_of([]),
        cursor_of("text"),
        cursor_of([NOW.isoformat()]),
        cursor_of([NOW.isoformat(), ID, 1]),
        cursor_of([NOW.isoformat(), "not an id"]),
        cursor_of([NOW.isoformat(), 5]),
        cursor_of([NOW.isoformat(), []]),
        cursor_of([NOW.isoformat(), {}]),
        cursor_of([NOW.isoformat(), True]),
        cursor_of([5, ID]),
        cursor_of(["2026-03-02T12:00:00", ID]),
        cursor_of(["soon", ID]),
        encode_cursor(UUID(ID), NOW),
        base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\xff\xfe[]").decode().rstrip("="),
    ],
)
def test_garbage_is_a_bad_cursor(text: str) -> None:
    with pytest.raises(BadCursor):
        decode_cursor(text, datetime, UUID)


def test_an_instant_that_no_database_could_hold_is_a_bad_cursor() -> None:
    """In UTC this one lies before the year 1: to write it into a statement is an OverflowError."""
    with pytest.raises(BadCursor):
        decode_cursor(cursor_of(["0001-01-01T00:00:00+14:00", ID]), datetime, UUID)


@pytest.mark.parametrize("kinds", KINDS)
@given(text=st.text())
def test_any_text_is_read_or_is_a_bad_cursor(kinds: tuple[type, ...], text: str) -> None:
    with contextlib.suppress(BadCursor):
        decode_cursor(text, *kinds)


@pytest.mark.parametrize("kinds", KINDS)
@given(value=st.one_of(JSON, *(st.lists(JSON, min_size=n, max_size=n) for n in (1, 2, 3))))
def test_any_json_is_read_or_is_a_bad_cursor(kinds: tuple[type, ...], value: Any) -> None:
    try:
        read = decode_cursor(cursor_of(value), *kinds)
    except BadCursor:
        return
    assert all(each is None or isinstance(each, kind) for each, kind in zip(read, kinds, strict=True))


# -- ids -----------------------------------------------------------------------------------------------------


@given(st.uuids())
def test_an_id_is_read_in_its_canonical_form_alone(value: UUID) -> None:
    text = str(value)
    assert parse_id(text) == value
    assert parse_id(text.upper()) == value
    for odd in (
        value.hex,
        f"{{{value.hex}xx}}",
        f"urn:uuid:{text}",
        text[:-1],
        text + "0",
        text.replace("-", ""),
    ):
        assert parse_id(odd) is None


@given(st.text() | st.text(min_size=36, max_size=36) | st.text("0123456789abcdef-{}", min_size=36, max_size=36))
def test_any_text_is_an_id_or_none(text: str) -> None:
    value = parse_id(text)
    assert value is None or str(value) == text.lower()


def test_ids_sort_in_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(2000)]
    assert made == sorted(made)
    assert len(set(made)) == 2000
    assert {each.version for each in made} == {7}
