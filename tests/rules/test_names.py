"""Names of people: the rule of the API and of the command line."""

from __future__ import annotations

import pytest

from scheduler.accounts.names import objection


@pytest.mark.parametrize("name", ["A", "Ada Lovelace", " Ada ", "עדה", "x" * 200, "🐫" * 200, "O'Neil, Jr."])
def test_what_is_taken(name: str) -> None:
    assert objection(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        (" \u3000\u00a0", "empty"),
        ("x" * 201, "200"),
        ("Ada\nBcc: eve@example.com", "one line"),
        ("Ada\r", "one line"),
        ("a\x00b", "control"),
        ("a\x85b", "control"),
        ("a\udcffb", "control"),
    ],
)
def test_what_is_not(name: str, words: str) -> None:
    why = objection(name)
    assert why is not None and words in why
