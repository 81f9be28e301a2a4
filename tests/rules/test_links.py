"""Tokens in the links of e-mails: whoever changes one has none."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import InvalidToken
from scheduler.identifiers import new_id
from scheduler.links import LIFETIME, Links

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
OLD, NEW, OTHER = "o" * 32, "n" * 32, "x" * 32
LINKS = Links([NEW, OLD], public_url="https://tasks.example.org")
REMINDER, PERSON = new_id(), new_id()


def token(links: Links = LINKS) -> str:
    return links.token(reminder_id=REMINDER, user_id=PERSON, now=NOW)


def test_round_trip() -> None:
    link = LINKS.read(token(), now=NOW)
    assert (link.reminder_id, link.user_id, link.made_at) == (REMINDER, PERSON, NOW)
    assert len(token()) < 100
    assert set(token()) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_any_bit_changed_makes_it_invalid() -> None:
    raw = base64.urlsafe_b64decode(token() + "==")
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidToken):
            LINKS.read(base64.urlsafe_b64encode(changed).decode().rstrip("="), now=NOW)


def test_any_part_missing_or_added_makes_it_invalid() -> None:
    raw = base64.urlsafe_b64decode(token() + "==")
    for changed in (*(raw[:length] for length in range(len(raw))), raw + b"\0", b"\0" + raw, raw * 2):
        with pytest.raises(InvalidToken):
            LINKS.read(base64.urlsafe_b64encode(changed).decode().rstrip("="), now=NOW)


def test_keys_rotate() -> None:
    before, after, elsewhere = (Links(keys, public_url="") for keys in ([OLD], [NEW], [OTHER]))
    assert LINKS.read(token(before), now=NOW).user_id == PERSON
    assert after.read(token(), now=NOW).user_id == PERSON  # the newest signs
    for made, read in ((before, after), (LINKS, before), (elsewhere, LINKS)):
        with pytest.raises(InvalidToken):
            read.read(token(made), now=NOW)


def test_links_grow_old() -> None:
    assert LINKS.read(token(), now=NOW + LIFETIME).user_id == PERSON
    with pytest.raises(InvalidToken):
        LINKS.read(token(), now=NOW + LIFETIME + timedelta(seconds=1))
    # To stop e-mails one may click however old a link.
    assert LINKS.read(token(), now=NOW + 40 * LIFETIME, lifetime=None).user_id == PERSON


@given(st.text() | st.binary(max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_an_invalid_token_and_nothing_worse(text: str) -> None:
    with pytest.raises(InvalidToken):
        LINKS.read(text, now=NOW)
