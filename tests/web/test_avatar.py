"""Pictures of people over HTTP: multipart in, WebP out, with everything that can be wrong in between."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image
from sqlalchemy import select
from yarl import URL

from models import Activity
from scheduler.accounts.pictures import LARGEST_UPLOAD
from scheduler.database import Database
from scheduler.settings import Settings
from tests.s3_server import S3Server
from tests.web.conftest import Answer, Caller, Service, assert_problem, start
from web import uploads


def png(colour: str = "red", size: tuple[int, int] = (600, 300)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


async def put(caller: Caller, content: bytes, *, name: str = "file", **options: Any) -> Answer:
    form = aiohttp.FormData()
    form.add_field(name, content, filename="me.png", content_type="image/png")
    return await caller("PUT", "/users/me/avatar", data=form, **options)


async def put_raw(caller: Caller, body: Any, content_type: str = "multipart/form-data; boundary=b") -> Answer:
    return await caller("PUT", "/users/me/avatar", data=body, headers={"Content-Type": content_type})


def files(service: Service) -> list[Path]:
    folder = service.settings.data_dir / "files"
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


async def test_a_picture_is_set_shown_replaced_and_removed(service: Service) -> None:
    alice, bob = await service.person("Alice"), await service.person("Bob")
    assert alice.user["avatar_url"] is None
    assert_problem(await bob("GET", f"/users/{alice.user['id']}/avatar"), 404, "not_found")

    answer = await put(alice, png("red"))
    assert answer.status == 200, answer.text
    url = answer.json["avatar_url"]
    assert answer.json == (await alice("GET", "/users/me")).json
    assert answer.headers["ETag"] == (await alice("GET", "/users/me")).headers["ETag"]
    assert answer.json["updated_at"] > alice.user["updated_at"]

    found = await bob("GET", "/" + url)
    assert found.status == 200 and found.headers["Content-Type"] == "image/webp"
    assert found.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert int(found.headers["Content-Length"]) == len(found.raw)
    image = Image.open(BytesIO(found.raw))
    assert (image.format, image.size) == ("WEBP", (512, 256))
    assert (await bob("GET", "/users/lookup", params={"q": "Alice"})).json["items"][0]["avatar_url"] == url
    plain = await bob("GET", f"/users/{alice.user['id']}/avatar")
    assert plain.raw == found.raw and plain.headers["Cache-Control"] == "private, no-cache"

    second = await put(alice, png("blue"))
    assert second.json["avatar_url"] != url
    assert len(files(service)) == 1
    # The old address shows what is there now, and may not be kept.
    old = await bob("GET", "/" + url)
    assert old.raw != found.raw and old.headers["Cache-Control"] == "private, no-cache"

    assert (await alice("DELETE", "/users/me/avatar")).status == 204
    assert (await alice("GET", "/users/me")).json["avatar_url"] is None
    assert files(service) == []
    assert_problem(await bob("GET", "/" + url), 404, "not_found")
    assert_problem(await alice("DELETE", "/users/me/avatar"), 404, "not_found")
    async with service.database.read() as session:
        query = select(Activity.action).where(Activity.target_type == "user").order_by(Activity.id)
        actions = (await session.execute(query)).scalars().all()
    assert [action for action in actions if action.startswith("avatar")] == [
        "avatar_changed",
        "avatar_changed",
        "avatar_removed",
    ]


async def test_it_is_cached_and_read_in_part(service: Service) -> None:
    alice = await service.person()
    await put(alice, png())
    path = f"/users/{alice.user['id']}/avatar"
    whole = await alice("GET", path)
    etag = whole.headers["ETag"]
    assert etag.startswith('"') and whole.headers["Accept-Ranges"] == "bytes"
    for given in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        same = await alice("GET", path, headers={"If-None-Match": given})
        assert (same.status, same.raw, same.headers["ETag"]) == (304, b"", etag)
    head = await alice("HEAD", path)
    assert (head.status, head.raw, head.headers["Content-Length"]) == (200, b"", str(len(whole.raw)))
    size = len(whole.raw)
    for given, begin, end in (("0-0", 0, 1), ("5-", 5, size), ("-7", size - 7, size), (f"3-{size + 9}", 3, size)):
        part = await alice("GET", path, headers={"Range": f"bytes={given}", "If-Range": etag})
        assert part.status == 206 and part.raw == whole.raw[begin:end]
        assert part.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{size}"
        assert part.headers["Content-Length"] == str(end - begin)
    for headers in (
        {"Range": "bytes=0-1,3-4"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=9-3"},
        {"Range": "bytes=-"},
        {"Range": "bytes=0-1", "If-Range": '"another"'},
        {"Range": "bytes=0-1", "If-Range": f"W/{etag}"},
    ):
        assert (await alice("GET", path, headers=headers)).raw == whole.raw
    for beyond in (f"bytes={size}-", "bytes=-0"):
        refused = await alice("GET", path, headers={"Range": beyond})
        assert_problem(refused, 416, "range_not_satisfiable")
        assert refused.headers["Content-Range"] == f"bytes */{size}"


async def test_if_match_may_name_the_person_or_the_picture(service: Service) -> None:
    alice = await service.person()
    path = f"/users/{alice.user['id']}/avatar"
    mine = (await alice("GET", "/users/me")).headers["ETag"]
    assert_problem(await put(alice, png(), headers={"If-Match": '"x"'}), 412, "precondition_failed")
    assert (await alice("GET", "/users/me")).json["avatar_url"] is None and files(service) == []
    assert (await put(alice, png(), headers={"If-Match": mine})).status == 200
    assert_problem(await put(alice, png(), headers={"If-Match": mine}), 412, "precondition_failed")
    picture = (await alice("GET", path)).headers["ETag"]
    assert (await put(alice, png("blue"), headers={"If-Match": picture})).status == 200
    stale = await alice("DELETE", "/users/me/avatar", headers={"If-Match": picture})
    assert_problem(stale, 412, "precondition_failed")
    assert (await alice("GET", path)).status == 200 and len(files(service)) == 1
    assert (await alice("DELETE", "/users/me/avatar", headers={"If-Match": "*"})).status == 204


@pytest.mark.heavy(on="sqlite")
async def test_only_pictures_that_are_whole_and_small_enough(service: Service) -> None:
    alice = await service.person()
    assert_problem(await put(alice, b"GIF89a"), 415, "unsupported_media_type")
    assert_problem(await put(alice, b""), 415, "unsupported_media_type")
    for content in (png()[:-40], png(size=(6000, 5000))):
        answer = await put(alice, content)
        assert_problem(answer, 422, "validation_failed")
        assert answer.json["errors"][0]["field"] == "/file"
    exact = png() + bytes(LARGEST_UPLOAD - len(png()))
    assert (await put(alice, exact)).status == 200
    assert_problem(await put(alice, exact + b"x"), 413, "too_large")
    assert_problem(await put(alice, exact * 3), 413, "too_large")
    assert_problem(await put_raw(alice, part("x") * 200 + END), 413, "too_large")
    assert_problem(await put_raw(alice, part("x", bytes(uploads.AROUND + 1)) + END), 413, "too_large")
    assert len(files(service)) == 1
    assert list((service.settings.data_dir / "spool").iterdir()) == []


def part(name: str, content: bytes = b"x", more: str = "") -> bytes:
    return (
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n{more}\r\n'.encode() + content + b"\r\n"
    )


END = b"--b--\r\n"


@pytest.mark.heavy(on="mariadb")
async def test_a_form_that_is_not_as_it_should_be(service: Service) -> None:
    alice = await service.person()
    for content_type in ("application/json", "image/png", "multipart/mixed; boundary=b", "application/octet-stream"):
        assert_problem(await put_raw(alice, part("file") + END, content_type), 415, "unsupported_media_type")
    for body, content_type in (
        (b"", "multipart/form-data; boundary=b"),
        (b"nothing here", "multipart/form-data; boundary=b"),
        (part("file") + END, "multipart/form-data"),
        (part("file") + END, "multipart/form-data; boundary=" + "b" * 71),
        (part("file"), "multipart/form-data; boundary=b"),
        (part("file")[:-5], "multipart/form-data; boundary=b"),
        (part("file", more="Content-Type: multipart/mixed; boundary=c\r\n") + END, "multipart/form-data; boundary=b"),
        (b"--b\r\n" + b"X: y\r\n" * 200 + b"\r\nx\r\n" + END, "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: " + b"x" * 20_000 + b"\r\n\r\nx\r\n" + END, "multipart/form-data; boundary=b"),
    ):
        assert_problem(await put_raw(alice, body, content_type), 400, "malformed_body")
    for body, wanted in (
        (END, [("/file", "required")]),
        (part("other") + END, [("/other", "unknown_field"), ("/file", "required")]),
        (part("file") + part("a/b~c") + END, [("/a~1b~0c", "unknown_field")]),
        (part("file") + part("file") + END, [("/file", "repeated")]),
        (part("file") + b"--b\r\n\r\nx\r\n" + END, [("", "unknown_field")]),
        (part("file", more="Content-Transfer-Encoding: base64\r\n") + END, [("/file", "bad_encoding")]),
        (part("file") + part("\udcff".encode(errors="surrogateescape").decode("latin-1")) + END, None),
    ):
        answer = await put_raw(alice, body)
        assert_problem(answer, 422, "validation_failed")
        found = [(error["field"], error["code"]) for error in answer.json["errors"]]
        assert wanted is None or found == wanted
    assert files(service) == []


async def test_what_follows_the_file_is_read_before_it_is_taken(service: Service) -> None:
    """With and without a part's own name and type: only the bytes count."""
    alice = await service.person()
    assert (await put_raw(alice, b"a preamble\r\n" + part("file", png()) + END + b"an epilogue")).status == 200
    nameless = (
        b'--b\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: text/plain\r\n\r\n' + png() + b"\r\n"
    )
    assert (await put_raw(alice, nameless + END)).status == 200


async def test_who_may(service: Service) -> None:
    alice = await service.person()
    await put(alice, png())
    for method, path in (
        ("PUT", "/users/me/avatar"),
        ("DELETE", "/users/me/avatar"),
        ("GET", "/users/me/avatar"),
        ("GET", f"/users/{alice.user['id']}/avatar"),
    ):
        assert_problem(await service.nobody(method, path), 401, "unauthenticated")
    assert (await alice("GET", "/users/me/avatar")).status == 200
    for path in ("/users/x/avatar", "/users/01890000-0000-7000-8000-000000000000/avatar"):
        assert_problem(await alice("GET", path), 404, "not_found")
    assert_problem(await alice("GET", f"/users/{alice.user['id']}/avatar?w=1"), 422, "validation_failed")


@pytest.mark.heavy(on="sqlite")
async def test_a_client_that_stalls_is_given_up_on(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "STALL_S", 0.1)
    alice = await service.person()
    url = URL(service.base)
    assert url.host is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"PUT /api/v1/users/me/avatar HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        + f"Authorization: Bearer {alice.token}\r\n\r\n".encode()
        + part("file")[:-2]
    )
    answer = await asyncio.wait_for(reader.readuntil(b'"request_timeout"'), 10)
    assert answer.startswith(b"HTTP/1.1 408") and b"Connection: close" in answer
    writer.close()


async def test_a_storage_that_is_away_is_a_503_and_changes_nothing(service: Service) -> None:
    alice = await service.person()
    await put(alice, png())
    before = (await alice("GET", "/users/me")).json
    folder = service.settings.data_dir / "files"
    folder.rename(folder.with_name("elsewhere"))
    folder.write_bytes(b"not a folder")
    answer = await put(alice, png("blue"))
    assert_problem(answer, 503, "unavailable")
    assert "Retry-After" in answer.headers
    assert (await alice("GET", "/users/me")).json == before
    # What can't be deleted just now is left to the cleanup.
    assert (await alice("DELETE", "/users/me/avatar")).status == 204
    assert (await alice("GET", "/users/me")).json["avatar_url"] is None


async def test_a_picture_that_the_storage_has_lost_is_not_there(service: Service) -> None:
    alice = await service.person()
    url = (await put(alice, png())).json["avatar_url"]
    for path in files(service):
        path.unlink()
    assert_problem(await alice("GET", "/" + url), 404, "not_found")


async def test_of_many_at_once_one_is_left(service: Service) -> None:
    alice = await service.person()
    colours = ("red", "green", "blue", "white", "black", "yellow")
    answers = await asyncio.gather(*(put(alice, png(colour)) for colour in colours))
    assert [answer.status for answer in answers] == [200] * len(colours)
    assert len(files(service)) == 1
    url = (await alice("GET", "/users/me")).json["avatar_url"]
    assert (await alice("GET", "/" + url)).headers["Cache-Control"].endswith("immutable")


@pytest.mark.heavy(on="mariadb")
async def test_the_same_with_a_bucket(settings: Settings, database: Database, s3_server: S3Server) -> None:
    runner, base = await start(settings.model_copy(update={"storage_url": s3_server.url}), database)
    async with aiohttp.ClientSession() as session:
        service = Service(base, settings, database, session, Caller(base, session))
        alice = await service.person()
        url = (await put(alice, png())).json["avatar_url"]
        first = await alice("GET", "/" + url)
        assert first.status == 200 and Image.open(BytesIO(first.raw)).size == (512, 256)
        assert (await alice("GET", "/" + url, headers={"Range": "bytes=-5"})).raw == first.raw[-5:]
        await put(alice, png("blue"))
        s3_server.kill()
        assert_problem(await put(alice, png()), 503, "unavailable")
        s3_server.ensure_running()
        s3_server.empty()
        assert_problem(await alice("GET", "/" + url), 404, "not_found")
        assert (await alice("DELETE", "/users/me/avatar")).status == 204
    await runner.cleanup()
