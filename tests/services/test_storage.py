"""The storage for files: the same in a folder and in a bucket that speaks S3."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from scheduler.storage import BLOCK, FOLDER, PART, SPOOL, Storage, StorageAway
from tests.processes import free_port
from tests.s3_server import S3Server

ROOT = Path(__file__).parent.parent.parent
LARGE = PART + 3 * BLOCK + 7
"""More than one part of an upload, and no whole number of blocks."""


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An empty one of each kind."""
    url = "file:" if request.param == "folder" else request.getfixturevalue("s3_server").url
    storage = Storage(url, tmp_path)
    yield storage
    storage.close()


async def blocks(size: int, block: int = 300_000) -> AsyncIterator[bytes]:
    content = large(size)
    for start in range(0, size, block):
        yield content[start : start + block]


def large(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def joined(found: AsyncIterator[bytes]) -> bytes:
    return b"".join([block async for block in found])


# -- what holds for both -------------------------------------------------------------------------------------


async def test_what_is_put_is_there_until_it_is_deleted(storage: Storage) -> None:
    await storage.put("avatars/a/1", b"picture")
    await storage.put("avatars/a/empty", b"")
    assert await storage.get("avatars/a/1") == b"picture"
    assert await storage.size("avatars/a/1") == 7
    assert await storage.get("avatars/a/empty") == b""
    assert await joined(storage.stream("avatars/a/empty")) == b""
    await storage.put("avatars/a/1", b"another")
    assert await storage.get("avatars/a/1") == b"another"
    await storage.delete("avatars/a/1")
    await storage.delete("avatars/a/1")
    for use in (storage.get, storage.size):
        with pytest.raises(FileNotFoundError):
            await use("avatars/a/1")
    with pytest.raises(FileNotFoundError):
        await joined(storage.stream("avatars/a/1"))


async def test_large_files_go_in_and_out_in_blocks(storage: Storage) -> None:
    assert await storage.put_stream("exports/x.zip", blocks(LARGE)) == LARGE
    assert await storage.size("exports/x.zip") == LARGE
    found = [block async for block in storage.stream("exports/x.zip")]
    assert b"".join(found) == large(LARGE)
    assert max(map(len, found)) <= BLOCK


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (5, 5), (BLOCK - 1, BLOCK + 1), (LARGE - 3, None), (LARGE - 3, LARGE + 50), (7, LARGE), (LARGE, None)],
)
async def test_any_range_can_be_read(tmp_path: Path, start: int, end: int | None) -> None:
    storage = Storage("file:", tmp_path)
    await storage.put("x", large(LARGE))
    assert await joined(storage.stream("x", start=start, end=end)) == large(LARGE)[start:end]
    storage.close()


async def test_a_range_of_a_bucket_can_be_read(s3_server: S3Server, tmp_path: Path) -> None:
    storage = Storage(s3_server.url, tmp_path)
    await storage.put("x", b"0123456789")
    assert await joined(storage.stream("x", start=3, end=7)) == b"3456"
    assert await joined(storage.stream("x", start=8)) == b"89"
    storage.close()


async def test_a_source_that_fails_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield large(PART + 1)
        raise RuntimeError("the client has gone")

    with pytest.raises(RuntimeError, match="the client has gone"):
        await storage.put_stream("attachments/a", breaks())
    with pytest.raises(FileNotFoundError):
        await storage.size("attachments/a")
    assert list((tmp_path / SPOOL).iterdir()) == []


async def test_what_is_there_can_be_listed_by_folder(storage: Storage) -> None:
    for key in ("avatars/a/1", "avatars/b/2", "avatars-of-cats/c", "exports/d.zip"):
        await storage.put(key, key.encode())
    found = [file async for page in storage.pages("avatars") for file in page]
    assert sorted((file.key, file.size) for file in found) == [("avatars/a/1", 11), ("avatars/b/2", 11)]
    assert all(abs(file.changed_at.timestamp() - time.time()) < 60 for file in found)
    assert [page async for page in storage.pages("nothing")] == []


async def test_many_at_once(storage: Storage) -> None:
    async def one(number: int) -> bool:
        content = os.urandom(1000)
        await storage.put(f"many/{number}", content)
        return await storage.get(f"many/{number}") == content

    assert all(await asyncio.gather(*map(one, range(40))))


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "a/../b", "A", "a\\b", "a\n", "ä", "a" * 201, ".a", "a#1"]
)
async def test_only_keys_of_our_own_making_are_taken(tmp_path: Path, key: str) -> None:
    storage = Storage("file:", tmp_path / "data")
    for use in (storage.put(key, b""), storage.get(key), storage.size(key), storage.delete(key)):
        with pytest.raises(ValueError, match="no key"):
            await use
    with pytest.raises(ValueError, match="no key"):
        await joined(storage.stream(key))
    assert not (tmp_path / "data").exists()
    storage.close()


async def test_it_can_be_tried(storage: Storage) -> None:
    await storage.check()
    assert [page async for page in storage.pages("checks")] == []


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    storage = Storage("file:", tmp_path)

    async def much() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(BLOCK)

    tracemalloc.start()
    try:
        await storage.put_stream("much", much())
        async for _ in storage.stream("much"):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * BLOCK
    storage.close()


# -- a folder ------------------------------------------------------------------------------------------------


async def test_nobody_else_can_look_into_the_folder(tmp_path: Path) -> None:
    for url, folder in (
        ("file:", tmp_path / "data" / FOLDER),
        (f"file:{tmp_path}/with%20space", tmp_path / "with space"),
    ):
        storage = Storage(url, tmp_path / "data")
        assert not folder.exists()
        await storage.put("a/b", b"x")
        assert (folder / "a" / "b").read_bytes() == b"x"
        assert folder.stat().st_mode & 0o777 == 0o700
        storage.close()


async def test_a_folder_that_can_not_be_made_is_a_storage_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = Storage(f"file:{tmp_path}/file/folder", tmp_path)
    for use in (storage.put("a", b""), storage.check()):
        with pytest.raises(StorageAway):
            await use
    storage.close()


ENDS_AT_ONCE = """
import asyncio, sys
from pathlib import Path
from scheduler.storage import Storage
async def main():
    storage = Storage("file:", Path(sys.argv[1]))
    await storage.put("a/b", b"x" * 100_000)
    asyncio.ensure_future(storage.put("a/c", b"y" * 5_000_000))
    await asyncio.sleep(0)
    storage.close()
asyncio.run(main())
"""


def test_a_process_may_end_at_any_moment(tmp_path: Path) -> None:
    """obstore's asynchronous calls abort a process that ends right after one (SIGABRT, every other time)."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", ENDS_AT_ONCE, str(tmp_path)], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / FOLDER / "a" / "b").stat().st_size == 100_000
    unwaited = tmp_path / FOLDER / "a" / "c"
    assert not unwaited.exists() or unwaited.stat().st_size == 5_000_000


# -- a bucket ------------------------------------------------------------------------------------------------


async def test_a_bucket_that_is_away_hangs_or_is_not_there(s3_server: S3Server, tmp_path: Path) -> None:
    elsewhere = Storage(s3_server.url.replace(s3_server.bucket, "no-such-bucket"), tmp_path)
    with pytest.raises(StorageAway):
        await elsewhere.put("a", b"x")
    elsewhere.close()
    nobody = Storage(f"s3://key:secret@bucket?endpoint=http://127.0.0.1:{free_port()}", tmp_path)
    with pytest.raises(StorageAway) as caught:
        await nobody.put("a", b"x")
    assert "secret" not in str(caught.value) + str(caught.value.__cause__) + nobody.description
    nobody.close()


@asynccontextmanager
async def bucket_over_tls(authority: trustme.CA) -> AsyncIterator[str]:
    """As much of S3 as stores and gives back one object, over TLS."""
    stored: dict[str, bytes] = {}

    async def put(request: web.Request) -> web.Response:
        stored[request.path] = await request.read()
        return web.Response(headers={"ETag": '"1"'})

    async def get(request: web.Request) -> web.Response:
        return web.Response(
            body=stored[request.path], headers={"ETag": '"1"', "Last-Modified": "Mon, 02 Mar 2026 12:00:00 GMT"}
        )

    app = web.Application()
    app.router.add_put("/{path:.*}", put)
    app.router.add_get("/{path:.*}", get)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"s3://key:secret@bucket?endpoint=https://localhost:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_the_certificate_of_a_bucket_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    async with bucket_over_tls(authority) as url:
        stranger = Storage(url, tmp_path)
        with pytest.raises(StorageAway):
            await stranger.put("a", b"x")
        stranger.close()
        with authority.cert_pem.tempfile() as path:
            monkeypatch.setenv("SSL_CERT_FILE", path)
            storage = Storage(url, tmp_path)
            await storage.put("a", b"x")
            assert await storage.get("a") == b"x"
            storage.close()
