"""Uploads: one file of `multipart/form-data` (RFC 7578), from the wire into a nameless file, in bounded memory.

It is read whole before anything else is done, so that a slow client holds no connection of the database and no lock.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import IO, Any

from aiohttp import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    MultipartReader,
    web,
)
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_protocol import RequestPayloadError

from scheduler.errors import FieldError, Invalid
from scheduler.storage import Storage
from web.problems import HTTPProblem
from web.routing import MULTIPART, TakesFile

AROUND = 64 * 1024
"""Bytes that a body may have beside its file: boundaries, headers of parts."""
MOST_PARTS = 10
"""Those that are too many are named in the answer, up to here."""
CHUNK = 64 * 1024
BLOCK = 256 * 1024
"""Bytes that are held, of each upload, before they are written away."""
STALL_S = 15
"""A client that sends nothing for so long is given up on."""
START_S = 30
SLOWEST = 32 * 1024
"""Bytes a second: a body may take `START_S`, and as long as its largest size takes at this pace."""


# aiohttp warns of what a client has spelled wrongly, in the client's words: Python would print each and keep them all.
for _kind in (BadContentDispositionHeader, BadContentDispositionParam):
    warnings.filterwarnings("ignore", category=_kind)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrived whole. It is gone when the request has its answer."""

    file: IO[bytes]
    filename: str
    """As the client calls it: any text, or none; never part of a path."""
    size: int
    """In bytes."""
    sha256: bytes

    async def read(self) -> bytes:
        """All of it, for what is known to be small."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        self.file.seek(0)
        return self.file.read()


@asynccontextmanager
async def upload_of(request: web.Request, takes: TakesFile, storage: Storage) -> AsyncIterator[Upload]:
    """The file in the request's part `file`.

    Raises HTTPProblem 400, 408, 413, 415, and Invalid where a part is missing, given twice or not known.
    """
    if request.content_type.lower() != MULTIPART:
        raise HTTPProblem("unsupported_media_type", f"Send {MULTIPART}, with the file in its part `{takes.name}`.")
    if request.content_length is not None and request.content_length > takes.maximum + AROUND:
        raise _too_large(takes)
    with storage.spooled() as file:
        try:
            async with asyncio.timeout(START_S + takes.maximum / SLOWEST):
                upload = await _receive(await request.multipart(), takes, file)
        except TimeoutError:
            raise HTTPProblem(
                "request_timeout", "The file did not arrive in time; send it again.", {"Connection": "close"}
            ) from None
        # What aiohttp's reader raises, and what it hears of a client that has gone.
        except (ValueError, RuntimeError, AssertionError, BadHttpMessage, RequestPayloadError, ConnectionError):
            raise HTTPProblem(
                "malformed_body", "The body can't be read as multipart/form-data; check its boundary and its end."
            ) from None
        yield upload


async def _receive(reader: MultipartReader, takes: TakesFile, file: IO[bytes]) -> Upload:
    found: Upload | None = None
    faults = []
    parts = 0
    while (part := await _in_time(reader.next())) is not None:
        parts += 1
        if parts > MOST_PARTS:
            raise _too_large(takes)
        name = _text(part.name) if isinstance(part, BodyPartReader) else None
        if not isinstance(part, BodyPartReader) or name != takes.name:
            faults.append(FieldError(_pointer(name), "There is no field of this name here", "unknown_field"))
            await _drop(part, takes)
        elif found is not None:
            faults.append(FieldError(_pointer(name), "Give it once", "repeated"))
            await _drop(part, takes)
        else:
            if part.headers.get("Content-Transfer-Encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
                faults.append(FieldError(_pointer(name), "Must be sent as it is (RFC 7578, 4.7)", "bad_encoding"))
            found = await _keep(part, takes, file)
    if found is None:
        faults.append(FieldError(_pointer(takes.name), "Is required", "required"))
    if faults or found is None:
        raise Invalid(*faults)
    return found


async def _keep(part: BodyPartReader, takes: TakesFile, file: IO[bytes]) -> Upload:
    digest, size, held = sha256(), 0, bytearray()

    def write(block: bytes) -> None:
        digest.update(block)
        file.write(block)

    while chunk := await _in_time(part.read_chunk(CHUNK)):
        size += len(chunk)
        if size > takes.maximum:
            raise _too_large(takes)
        held += chunk
        if len(held) >= BLOCK:
            await asyncio.to_thread(write, bytes(held))
            held.clear()
    await asyncio.to_thread(write, bytes(held))
    return Upload(file, _text(part.filename) or "", size, digest.digest())


async def _drop(part: Any, takes: TakesFile) -> None:
    """Read over a part that is not wanted: what is wrong with the others is to be told too."""
    if not isinstance(part, BodyPartReader):
        raise ValueError("a part of several parts")
    size = 0
    while chunk := await _in_time(part.read_chunk(CHUNK)):
        size += len(chunk)
        if size > AROUND:
            raise _too_large(takes)


async def _in_time(read: Any) -> Any:
    async with asyncio.timeout(STALL_S):
        return await read


def _too_large(takes: TakesFile) -> HTTPProblem:
    return HTTPProblem("too_large", f"The file is larger than {takes.maximum} bytes; send a smaller one.")


def _text(given: str | None) -> str | None:
    """Bytes that are not UTF-8 become U+FFFD, and control characters too: JSON and databases take no others."""
    if given is None:
        return None
    text = given.encode(errors="surrogateescape").decode(errors="replace")
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _pointer(name: str | None) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1") if name is not None else ""
