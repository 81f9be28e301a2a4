"""Instants as RFC 3339 writes them, and as the contract takes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.clock import format_instant, now, parse_instant

INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31, 23, 59, 59, 999999), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-20T07:22:00Z", datetime(2026, 11, 20, 7, 22)),
        ("2026-11-20t07:22:00z", datetime(2026, 11, 20, 7, 22)),
        ("2026-11-20T07:22:00+01:00", datetime(2026, 11, 20, 6, 22)),
        ("2026-11-20T07:22:00-05:45", datetime(2026, 11, 20, 13, 7)),
        ("2026-11-20T07:22:00-00:00", datetime(2026, 11, 20, 7, 22)),
        ("2026-01-01T00:30:00+14:00", datetime(2025, 12, 31, 10, 30)),
        ("2026-11-20T07:22:00+23:59", datetime(2026, 11, 19, 7, 23)),
        ("2026-11-20T07:22:00.5Z", datetime(2026, 11, 20, 7, 22, 0, 500_000)),
        ("2026-11-20T07:22:00.000001Z", datetime(2026, 11, 20, 7, 22, 0, 1)),
        ("2026-11-20T07:22:00.1234569999Z", datetime(2026, 11, 20, 7, 22, 0, 123_456)),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29)),
        # RFC 3339, 5.8: leap seconds.
        ("1990-12-31T23:59:60Z", datetime(1990, 12, 31, 23, 59, 59)),
        ("1990-12-31T15:59:60-08:00", datetime(1990, 12, 31, 23, 59, 59)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1)),
        ("1969-12-31T23:00:00-01:00", datetime(1970, 1, 1)),
        ("2199-12-31T23:59:59.999999Z", datetime(2199, 12, 31, 23, 59, 59, 999_999)),
    ],
)
def test_what_is_taken(text: str, instant: datetime) -> None:
    parsed = parse_instant(text)
    assert parsed == instant.replace(tzinfo=UTC)
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-20",
        "2026-11-20T07:22:00",  # naive
        "2026-11-20 07:22:00Z",
        "2026-11-20T07:22Z",
        "2026-11-20T7:22:00Z",
        "20261120T072200Z",
        "2026-W47-5T07:22:00Z",
        "2026-11-20T07:22:00.Z",
        "2026-11-20T07:22:00,5Z",
        "2026-11-20T07:22:00 Z",
        " 2026-11-20T07:22:00Z",
        "2026-11-20T07:22:00Z\n",
        "2026-11-20T07:22:00+0100",
        "2026-11-20T07:22:00+01",
        "2026-11-20T07:22:00+24:00",
        "2026-11-20T07:22:00+01:60",
        "2026-11-20T07:22:00[Europe/Berlin]",
        "2026-11-20T24:00:00Z",
        "2026-11-20T07:60:00Z",
        "2026-11-20T07:22:61Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "2200-01-01T00:00:00Z",
        "2199-12-31T23:59:59-00:01",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "10000-01-01T00:00:00Z",
        "-2026-11-20T07:22:00Z",
        "２０２６-11-20T07:22:00Z",
        "٢٠٢٦-11-20T07:22:00Z",
        "1763623320",
        "now",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_instant(text)
    assert str(caught.value).startswith(("must ", "has ", "is "))  # words for a person, to stand after a field's name


def test_a_second_sixty_is_a_leap_second_only_where_one_can_be() -> None:
    """RFC 3339, 5.7: the last second of a month, in UTC."""
    with pytest.raises(ValueError):
        parse_instant("2026-11-20T07:22:60Z")


@given(INSTANTS)
def test_what_we_write_we_read(instant: datetime) -> None:
    text = format_instant(instant)
    assert text.endswith("Z")
    assert ("." in text) == (instant.microsecond != 0)
    assert parse_instant(text) == instant


@given(INSTANTS, st.integers(-23 * 60, 23 * 60))
def test_any_offset_says_the_same_instant(instant: datetime, offset_minutes: int) -> None:
    local = instant.astimezone(timezone(timedelta(minutes=offset_minutes)))
    assert parse_instant(local.isoformat()) == instant
    assert format_instant(local) == format_instant(instant)


@given(st.text())
def test_any_text_is_read_or_is_a_value_error(text: str) -> None:
    try:
        parsed = parse_instant(text)
    except ValueError:
        return
    assert parsed.tzinfo is UTC


@given(st.from_regex(r"\A\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z"))
def test_whatever_has_the_form_is_in_range_or_is_a_value_error(text: str) -> None:
    try:
        parsed = parse_instant(text)
    except ValueError:
        return
    assert 1970 <= parsed.year <= 2199


def test_the_present_is_aware_and_in_utc() -> None:
    assert now().tzinfo is UTC
