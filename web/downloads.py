"""Files out of the storage: with an ETag, in part where a part is asked for, and a block at a time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

from aiohttp import Payload, web
from aiohttp.abc import AbstractStreamWriter

from scheduler.storage import Storage
from web.problems import HTTPProblem
from web.responses import none_match

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


class _Blocks(Payload):
    """A body whose blocks are fetched as the client takes them, after every middleware is done and no transaction is
    open."""

    def __init__(self, blocks: AsyncIterator[bytes], size: int, media_type: str) -> None:
        super().__init__(blocks, content_type=media_type)
        self._size = size

    async def write(self, writer: AbstractStreamWriter) -> None:
        async for block in self._value:
            await writer.write(block)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("This body is only there in blocks")


async def download(
    request: web.Request,
    storage: Storage,
    *,
    key: str,
    media_type: str,
    etag: str,
    cache_control: str,
    filename: str | None = None,
) -> web.Response:
    """The stored file, or the one range of it that is asked for (RFC 9110, 14); 304 when `If-None-Match` names `etag`.

    `filename`: to be saved under this name, and not shown. Raises FileNotFoundError, StorageAway, and HTTPProblem 416.
    """
    size = await storage.size(key)
    headers = {"ETag": f'"{etag}"', "Cache-Control": cache_control, "Accept-Ranges": "bytes"}
    if none_match(request, etag):
        return web.Response(status=304, headers=headers)
    if filename is not None:
        headers["Content-Disposition"] = attachment(filename)
    part = _wanted(request, etag, size)
    start, end = part or (0, size)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    body = _Blocks(storage.stream(key, start=start, end=end), end - start, media_type)
    return web.Response(status=200 if part is None else 206, body=body, headers=headers)


def attachment(filename: str) -> str:
    """`Content-Disposition` for a file to be saved, its name in ASCII and in full (RFC 6266, RFC 8187)."""
    plain = re.sub(r'[^ -~]|["\\%]', "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def wanted_range(header: str, size: int) -> tuple[int, int] | None:
    """The range from its first byte up to and without its last, of a file of `size` bytes; an empty one where there are
    no such bytes. None for the whole: also when several are asked for, or the header means nothing (RFC 9110, 14.2 lets
    us)."""
    found = _RANGE.fullmatch(header.strip())
    first, last = found.groups() if found else ("", "")
    if first:
        if last and int(last) < int(first):
            return None
        return int(first), min(int(last) + 1, size) if last else size
    return (max(0, size - int(last)), size) if last else None


def _wanted(request: web.Request, etag: str, size: int) -> tuple[int, int] | None:
    # A weak ETag or a date never tells two contents apart for sure (RFC 9110, 13.1.5).
    is_same = request.headers.get("If-Range", f'"{etag}"').strip() == f'"{etag}"'
    part = wanted_range(request.headers.get("Range", ""), size) if request.method == "GET" and is_same else None
    if part is not None and part[0] >= part[1]:
        detail = f"There are {size} bytes; ask for some of them."
        raise HTTPProblem("range_not_satisfiable", detail, {"Content-Range": f"bytes */{size}"})
    return part
