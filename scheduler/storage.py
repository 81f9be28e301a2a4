"""Files that people have us keep (pictures, exports, attachments), by key: in a folder, or in a bucket that speaks S3.

A key is a path that we made (`avatars/<person>/<name>`), never a name that somebody gave. What stands under a key never
changes: another content gets another key. So a row names what is there, and what no row names is nobody's.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from scheduler.errors import Unavailable
from scheduler.logs import get_logger
from scheduler.setting_values import check_storage_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

Result = TypeVar("Result")

FOLDER = "files"
"""In the data folder, for `file:`."""
SPOOL = "spool"
"""In the data folder: what is on its way lies here, in files that have no name and end with their process."""
BLOCK = 1024 * 1024
"""Bytes of a file that are held at once while it is read."""
PART = 5 * 1024 * 1024
"""Bytes of a part of a large file on its way into a bucket: the least that S3 takes."""
PARTS_AT_ONCE = 1
THREADS = 8
LISTED_AT_ONCE = 1000

# A bucket that hangs is known as one before a request's patience (web/patience.py) is over. A part must be through
# within READ_TIMEOUT_S, too: at 4 Mbit/s.
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 30
RETRIES = 2
RETRY_TIMEOUT_S = 8

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
LONGEST_KEY = 200

log = get_logger("storage")


class StorageAway(Unavailable):
    """The storage for files does not answer just now; try again in a few seconds."""


class StoredFile(NamedTuple):
    """One file that is there."""

    key: str
    size: int
    changed_at: datetime


class Storage:
    """The place that `url` (`PUNCTUAL_STORAGE_URL`) names. Nothing is connected, and no folder made, until it is used.

    Every method raises StorageAway where the storage can't be reached or refuses us, and ValueError for what is no key.
    """

    def __init__(self, url: str, data_dir: Path) -> None:
        check_storage_url(url)
        parts = urlsplit(url)
        self._spool = data_dir / SPOOL
        self._folder = _folder(parts, data_dir) if parts.scheme == "file" else None
        self._store: ObjectStore | None = None if self._folder is not None else _bucket(parts)
        self.description = f"folder {self._folder}" if self._folder else f"bucket {_place(parts)}"
        # Threads of our own and obstore's blocking calls, which let go of the interpreter: its asynchronous ones come
        # back into Python from threads that nobody can wait for, and abort a process that ends at that moment.
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="storage")

    async def put(self, key: str, content: bytes) -> None:
        """Store `content`: whole, or not at all."""
        await self._run(self._put, _checked(key), content)

    async def put_file(self, key: str, file: IO[bytes]) -> None:
        """Store what `file` holds from its beginning, in bounded memory: whole, or not at all."""
        await self._run(self._put, _checked(key), file)

    async def put_stream(self, key: str, blocks: AsyncIterable[bytes]) -> int:
        """Store what `blocks` give, and return its size. They are gathered in a nameless file first, so that a slow
        source holds up nothing, and one that raises leaves nothing."""
        _checked(key)
        with self.spooled() as file:
            size = 0
            async for block in blocks:
                size += len(block)
                await self._run(file.write, block)
            await self.put_file(key, file)
            return size

    async def get(self, key: str) -> bytes:
        """All of a file that is known to be small. Raises FileNotFoundError."""
        return await self._run(self._get, _checked(key))

    async def stream(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to and without `end` (None: all the rest), a block at a time.

        Each block is asked for by itself: whoever reads slowly holds nothing open. Raises FileNotFoundError, also
        between two blocks where the file goes meanwhile.
        """
        size = await self.size(key)
        end = size if end is None else min(end, size)
        while start < end:
            block = await self._run(self._get_range, _checked(key), start, min(start + BLOCK, end))
            start += len(block)
            yield block

    async def size(self, key: str) -> int:
        """In bytes. Raises FileNotFoundError."""
        return await self._run(self._size, _checked(key))

    async def delete(self, key: str) -> None:
        """See that it is not there."""
        await self._run(self._delete, _checked(key))

    async def pages(self, folder: str) -> AsyncIterator[list[StoredFile]]:
        """All that is stored under keys that begin with `folder` and a slash, a page at a time, in no order."""
        found = await self._run(self._listed, _checked(folder))
        while page := await self._run(next, found, []):
            yield page

    def spooled(self) -> IO[bytes]:
        """A file to write to and read from, for what is on its way: it has no name, so nobody else finds it, and it is
        gone once it is closed, or its process is."""
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._spool)

    async def check(self) -> None:
        """Try it: write, read and delete a small file. What is wrong is not logged: it is for the caller to say."""
        await self._in_thread(self._check)

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself, before the process does."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- in a thread -----------------------------------------------------------------------------------------

    async def _run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return await self._in_thread(work, *arguments)
        except StorageAway as error:
            cause = error.__cause__
            log.warning("storage.failed", error=type(cause).__name__, reason=str(cause).partition("\n")[0][:300])
            raise

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise StorageAway() from error

    def _open(self) -> ObjectStore:
        if self._store is None:
            assert self._folder is not None
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._store = LocalStore(self._folder, automatic_cleanup=True)
        return self._store

    def _put(self, key: str, content: bytes | IO[bytes]) -> None:
        if not isinstance(content, bytes):
            content.seek(0)
        try:
            obstore.put(self._open(), key, content, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)
        except FileNotFoundError as error:  # the bucket itself
            raise OSError(str(error)) from None
        if self._folder is not None:
            _make_lasting(self._folder / key, self._folder)

    def _get(self, key: str) -> bytes:
        return obstore.get(self._open(), key).bytes().to_bytes()

    def _check(self) -> None:
        key, content = f"checks/{secrets.token_hex(8)}", secrets.token_bytes(16)
        self._put(key, content)
        try:
            if self._get(key) != content:
                raise OSError("it gives back something else than what was stored")
        finally:
            self._delete(key)

    def _get_range(self, key: str, start: int, end: int) -> bytes:
        return obstore.get_range(self._open(), key, start=start, end=end).to_bytes()

    def _size(self, key: str) -> int:
        return obstore.head(self._open(), key)["size"]

    def _delete(self, key: str) -> None:
        with suppress(FileNotFoundError):  # a folder says so, a bucket does not
            obstore.delete(self._open(), key)

    def _listed(self, folder: str) -> Iterator[list[StoredFile]]:
        for page in obstore.list(self._open(), folder, chunk_size=LISTED_AT_ONCE):
            yield [StoredFile(each["path"], each["size"], each["last_modified"]) for each in page]


def _checked(key: str) -> str:
    if len(key) > LONGEST_KEY or not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of a stored file")
    return key


def _folder(parts: SplitResult, data_dir: Path) -> Path:
    return Path(unquote(parts.path)) if parts.path else data_dir / FOLDER


def _make_lasting(path: Path, root: Path) -> None:
    """What a row will say is there must outlive a power cut, as the row does: its content, and its names."""
    for each in (path, *path.parents):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if each == root:
            return


def _bucket(parts: SplitResult) -> S3Store:
    """`s3://key:secret@bucket?endpoint=…&region=…`; without a key and secret, what AWS's own tools would use."""
    options = dict(parse_qsl(parts.query))
    config: S3Config = {"region": options.get("region", "us-east-1")}
    if "endpoint" in options:
        config["endpoint"] = options["endpoint"]
    if parts.username and parts.password:
        config["access_key_id"], config["secret_access_key"] = unquote(parts.username), unquote(parts.password)
    client: ClientConfig = {
        "allow_http": options.get("endpoint", "").startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
    }
    if certificates := os.environ.get("SSL_CERT_FILE"):
        client["root_certificate"] = Path(certificates).read_bytes()
    retry: RetryConfig = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)}
    bucket = parts.netloc.rpartition("@")[2]
    return S3Store(bucket, config=config, client_options=client, retry_config=retry)


def _place(parts: SplitResult) -> str:
    """The bucket and where it is, without the secret."""
    bucket, endpoint = parts.netloc.rpartition("@")[2], dict(parse_qsl(parts.query)).get("endpoint")
    return f"{bucket} at {endpoint}" if endpoint else f"{bucket} at Amazon"
