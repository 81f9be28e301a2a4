"""Keyset pages: a cursor names the last row seen, so page 10,000 costs what page 1 costs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Generic, NamedTuple, TypeVar, get_args
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, and_, or_

from scheduler.errors import BadCursor

Item = TypeVar("Item")
DEFAULT_LIMIT, GREATEST_LIMIT = 50, 200


class Page(NamedTuple, Generic[Item]):
    """A page of a list; `total` only when it was asked for."""

    items: Sequence[Item]
    next_cursor: str | None
    total: int | None = None


def encode_cursor(*keys: Any) -> str:
    """An opaque cursor from the sort keys of a row (instants, ids, text, numbers, None)."""
    return base64.urlsafe_b64encode(orjson.dumps([_plain(key) for key in keys])).decode().rstrip("=")


def decode_cursor(text: str, *kinds: Any) -> list[Any]:
    """The sort keys behind a cursor, each of the kind given (`Optional[kind]`: or None). Raises `BadCursor`."""
    try:
        values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError("not a cursor of this list")
        return [_read(value, kind) for value, kind in zip(values, kinds, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error):
        raise BadCursor() from None


def after(*columns_and_values: tuple[ColumnElement[Any], Any, bool]) -> ColumnElement[bool]:
    """The rows behind a row in the order of `(column, its value, descending)`.

    Spelled as `a > x OR (a = x AND b > y)`: MariaDB makes no index range of the row value `(a, b) > (x, y)`.
    """
    alternatives = []
    equal: list[ColumnElement[bool]] = []
    for column, value, descending in columns_and_values:
        alternatives.append(and_(*equal, column < value if descending else column > value))
        equal.append(column == value)
    return or_(*alternatives)


def _plain(key: Any) -> Any:
    if isinstance(key, UUID):
        return str(key)
    return key.isoformat() if isinstance(key, datetime) else key


def _read(value: Any, kind: Any) -> Any:
    allowed = get_args(kind) or (kind,)
    if value is None and NoneType in allowed:
        return None
    kind = allowed[0]
    if kind is UUID and isinstance(value, str):
        return UUID(value)
    if kind is datetime and isinstance(value, str):
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            raise ValueError("naive")
        return instant.astimezone(UTC)
    if type(value) is not kind:
        raise TypeError("of another kind")
    return value
