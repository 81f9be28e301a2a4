"""Ids: UUID version 7 (RFC 9562), which sort by the time they were made and so keep inserts at the end of an
index."""

from __future__ import annotations

from uuid import UUID

from uuid_utils.compat import uuid7

CANONICAL_LENGTH = 36


def new_id() -> UUID:
    """A new UUIDv7."""
    return uuid7()


def parse_id(text: str) -> UUID | None:
    """The id that `text` spells in canonical form, or None: to a client an id is opaque, so one odd spelling
    is no id."""
    if len(text) != CANONICAL_LENGTH:
        return None
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
