"""Names of people: what we take."""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""In code points."""
LONGEST_FOLDED = 600
"""Of a name as it is searched: folding makes some letters two or three."""


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


def folded(name: str) -> str:
    """The name as it is searched: without case, accents and width, so that every database finds the same (Unicode
    Standard, 3.13, D146, and its marks left out)."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    return "".join(each for each in decomposed if not unicodedata.combining(each))[:LONGEST_FOLDED]
