"""Names of people: what we take."""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""In code points."""


def objection(name: str) -> str | None:
    """Why this name is not taken, in words for the person, or None when it is."""
    if not name.strip():
        return "must not be empty"
    if len(name) > LONGEST:
        return f"must have at most {LONGEST} characters"
    # Cc: control characters, line breaks among them. Cs: half a character, from bytes that are no UTF-8.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "must be one line without control characters"
    return None
