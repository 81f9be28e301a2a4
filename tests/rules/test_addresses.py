"""E-mail addresses: one spelling each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.accounts.addresses import normalise_email


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("alice@example.com", "alice@example.com"),
        ("  Alice@Example.COM \n", "alice@example.com"),
        ("a.b+tag@example.com", "a.b+tag@example.com"),
        ("o'neill@example.com", "o'neill@example.com"),
        ("alice@bücher.example", "alice@xn--bcher-kva.example"),
        ("ALICE@BÜCHER.example", "alice@xn--bcher-kva.example"),
        ("alice@xn--bcher-kva.example", "alice@xn--bcher-kva.example"),
        ("root@localhost", "root@localhost"),
        ("alice@nas.local", "alice@nas.local"),
        ("alice@punctual.test", "alice@punctual.test"),
    ],
)
def test_what_is_taken(typed: str, stored: str) -> None:
    assert normalise_email(typed) == stored
    assert normalise_email(stored) == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@example.com",
        "alice@",
        "alice@@example.com",
        "alice@example..com",
        "alice@-example.com",
        "alice example@example.com",
        "Alice <alice@example.com>",
        "alice@example.com, bob@example.com",
        "alice@example.com\nBcc: bob@example.com",
        "alice\r\n@example.com",
        "alice@example.com\x00",
        "zoë@example.com",
        '"alice smith"@example.com',
        "alice@[127.0.0.1]",
        "a" * 65 + "@example.com",
        "alice@" + "a" * 64 + ".com",
        "alice@" + "a." * 130 + "com",
        ".alice@example.com",
        "alice.@example.com",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(ValueError, match="is not an e-mail address"):
        normalise_email(text)


@given(st.text() | st.emails() | st.tuples(st.text(), st.text()).map("@".join))
def test_any_text_is_an_address_that_fits_its_column_or_a_value_error(text: str) -> None:
    try:
        stored = normalise_email(text)
    except ValueError:
        return
    assert stored.isascii() and stored.isprintable() and " " not in stored
    assert len(stored) <= 254
    assert stored == stored.lower() == normalise_email(stored)
