"""Answers: JSON written once, strong ETags and what follows from them, pages of lists."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, TypeVar

import orjson
from aiohttp import web
from aiohttp.helpers import ETag
from yarl import URL

from scheduler.errors import PreconditionFailed

# Instants end in Z, and show a fraction only when it is not zero. Rows of the database are naive and UTC.
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC

Item = TypeVar("Item", bound=Mapping[str, Any])


def write_json(value: Any) -> bytes:
    """`value` as JSON in UTF-8."""
    return orjson.dumps(value, option=_OPTIONS)


def answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with a JSON body and no ETag."""
    return web.Response(body=write_json(value), status=status, content_type="application/json", headers=headers)


def no_content(status: int = 204) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status)


def entity(
    request: web.Request,
    value: Any,
    *,
    status: int = 200,
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A single resource with its strong ETag (a hash of the body, unless `etag` is given, unquoted).

    A GET whose If-None-Match holds that ETag gets 304 and no body (RFC 9110, 13.1.2).
    """
    body = write_json(value)
    tag = hash_of(body) if etag is None else etag
    if none_match(request, tag):
        response = web.Response(status=304)
    else:
        response = web.Response(body=body, status=status, content_type="application/json", headers=headers)
    response.headers["ETag"] = f'"{tag}"'
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def hash_of(body: bytes) -> str:
    """The ETag, unquoted, of a resource that has no version of its own."""
    return blake2b(body, digest_size=12).hexdigest()


def changeable_etag(value: Any, changeable: Any) -> str:
    """The ETag, unquoted, of a resource that changes by itself all the time, and in `changeable` by its clients.

    Of two parts: for `If-None-Match` both count, so that a 304 never hides anything; for `If-Match` the first, as
    nobody's change is lost when only the rest has changed meanwhile.
    """
    return f"{hash_of(write_json(changeable))}-{hash_of(write_json(value))}"


def require_match(request: web.Request, etag: str) -> None:
    """Raise PreconditionFailed when If-Match is there and does not name `etag` (unquoted; of a `changeable_etag` the
    first part).

    Call it inside the transaction, with the row locked, before anything is changed.
    """
    if "If-Match" not in request.headers:
        return
    # Strong comparison (RFC 9110, 13.1.1): a weak tag matches nothing; `*` matches whatever is there.
    tags: tuple[ETag, ...] = _tags(request, "if_match")
    wanted, dash, _ = etag.partition("-")
    given = ((tag, tag.value.partition("-")[0] if dash else tag.value) for tag in tags)
    if not any(tag.value == "*" or (value == wanted and not tag.is_weak) for tag, value in given):
        raise PreconditionFailed()


def wanted_version(request: web.Request) -> int | None:
    """The version that If-Match names, for services that compare it while they hold the row; None: any will
    do.

    A tag that can't be a version matches none, like one of an older version.
    """
    if "If-Match" not in request.headers:
        return None
    tags = [tag for tag in _tags(request, "if_match") if not tag.is_weak]
    if any(tag.value == "*" for tag in tags):
        return None
    # Of several, only the newest can be the present one: versions only grow.
    return max(
        (int(tag.value) for tag in tags if tag.value.isascii() and tag.value.isdigit() and len(tag.value) < 18),
        default=-1,
    )


def none_match(request: web.Request, etag: str) -> bool:
    """Whether the caller has what `etag` (unquoted) names already: a read whose `If-None-Match` holds it, by weak
    comparison (RFC 9110, 13.1.2)."""
    if request.method not in ("GET", "HEAD"):
        return False
    return any(tag.value in ("*", etag) for tag in _tags(request, "if_none_match"))


def _tags(request: web.Request, name: str) -> tuple[ETag, ...]:
    return tuple(getattr(request, name) or ())


def page(
    request: web.Request, items: list[Item], next_cursor: str | None, *, total: int | None = None, **more: Any
) -> web.Response:
    """A page of a list, with `Link: <…>; rel="next"` (RFC 8288) while there is a next one. `total` only when
    it was asked for."""
    value: dict[str, Any] = {"items": items, "next_cursor": next_cursor, **more}
    if total is not None:
        value["total"] = total
    headers = {}
    if next_cursor is not None:
        address: URL = request.rel_url.update_query(cursor=next_cursor)
        headers["Link"] = f'<{address}>; rel="next"'
    return answer(value, headers=headers)
