"""Codes of authenticators and recovery codes, as values."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.accounts import one_time_codes as codes

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
NOW = datetime(2026, 3, 2, 12, 0, 7, tzinfo=UTC)
STEP = codes.step_of(NOW)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_rfc_6238(seconds: int, code: str) -> None:
    """Appendix B, SHA-1: eight digits there, of which ours are the last six."""
    step = codes.step_of(datetime.fromtimestamp(seconds, UTC))
    assert codes.totp_code(RFC_SECRET, step) == code[-6:]


@pytest.mark.parametrize("off", range(-4, 5))
def test_one_step_of_skew_either_way(off: int) -> None:
    code = codes.totp_code(RFC_SECRET, STEP + off)
    found = codes.matching_step(RFC_SECRET, code, now=NOW, last_step=None)
    assert found == (STEP + off if abs(off) <= 1 else None)


def test_a_code_lives_for_ninety_seconds() -> None:
    code = codes.totp_code(RFC_SECRET, STEP)
    begins = datetime.fromtimestamp(STEP * 30, UTC)
    for seconds, right in ((-30.001, False), (-30, True), (0, True), (59.999, True), (60, False)):
        at = begins + timedelta(seconds=seconds)
        assert (codes.matching_step(RFC_SECRET, code, now=at, last_step=None) is not None) is right, seconds


@pytest.mark.parametrize("used", [-1, 0, 1])
@pytest.mark.parametrize("given", [-1, 0, 1])
def test_no_code_of_a_used_step_or_before(used: int, given: int) -> None:
    code = codes.totp_code(RFC_SECRET, STEP + given)
    found = codes.matching_step(RFC_SECRET, code, now=NOW, last_step=STEP + used)
    assert found == (STEP + given if given > used else None)


@pytest.mark.parametrize("wrong", ["", "00000", "0000000", "12345a", "١٢٣٤٥٦", "💥💥💥💥💥💥"])
def test_what_is_no_code_matches_nothing(wrong: str) -> None:
    assert codes.matching_step(RFC_SECRET, wrong, now=NOW, last_step=None) is None


def test_secrets_are_random_and_as_long_as_they_should_be() -> None:
    secrets = {codes.new_totp_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(base64.b32decode(secret)) for secret in secrets} == {20}  # RFC 4226, 4: 160 bits are recommended


def test_the_uri_says_all_that_an_authenticator_needs() -> None:
    uri = codes.otpauth_uri(RFC_SECRET, account="ann+home&co@example.com")
    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert unquote(parts.path) == "/Punctual:ann+home&co@example.com"
    assert parse_qs(parts.query) == {"secret": [RFC_SECRET], "issuer": ["Punctual"]}


def test_recovery_codes_are_random_and_easy_to_type() -> None:
    made = [codes.new_recovery_code() for _ in range(200)]
    forms = {codes.recovery_form(codes.normalise_code(code)) for code in made}
    assert len(forms) == 200 and None not in forms
    letters = {letter for code in made for letter in code if letter != "-"}
    assert len(letters) == 32 and letters.isdisjoint("ilou")  # 5 bits each, 24 of them
    assert all([len(group) for group in code.split("-")] == [4] * 6 for code in made)


@pytest.mark.parametrize(
    "typed",
    [
        "x7k2-9mqd-0tzr-h41w-5pvn-e8ja",
        "X7K2-9MQD-0TZR-H41W-5PVN-E8JA",
        " x7k2 9mqd 0tzr h41w 5pvn e8ja ",
        "x7k29mqd0tzrh41w5pvne8ja",
        "x7k2–9mqd—0tzr‐h41w-5pvn-e8ja",
        "x7k2-9mqd-otzr-h4lw-5pvn-e8ja",
        "X7K2-9MQD-OTZR-H4IW-5PVN-E8JA",
        "ｘ７ｋ２－９ｍｑｄ－０ｔｚｒ－ｈ４１ｗ－５ｐｖｎ－ｅ８ｊａ",
    ],
)
def test_however_it_is_typed_it_is_the_same(typed: str) -> None:
    assert codes.recovery_form(codes.normalise_code(typed)) == "x7k29mqd0tzrh41w5pvne8ja"


@pytest.mark.parametrize("typed", ["", "-", "x7k2", "x" * 23, "x" * 25, "u" * 24, "x" * 23 + "é", "x" * 1000])
def test_what_is_no_recovery_code(typed: str) -> None:
    assert codes.recovery_form(codes.normalise_code(typed)) is None


@pytest.mark.parametrize("typed", ["287082", " 287 082 ", "287-082", "２８７０８２", "287\u00a0082"])
def test_digits_are_those_of_an_authenticator(typed: str) -> None:
    code = codes.normalise_code(typed)
    assert codes.is_totp_shaped(code) and code == "287082"
    assert codes.recovery_form(code) is None


@given(st.text(max_size=40))
def test_any_text_is_one_thing_or_the_other_or_nothing(text: str) -> None:
    code = codes.normalise_code(text)
    if codes.is_totp_shaped(code):
        codes.matching_step(RFC_SECRET, code, now=NOW, last_step=None)
        assert codes.recovery_form(code) is None
