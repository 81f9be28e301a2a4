"""The contract's section 1, held by every route: each test walks over all operations of the OpenAPI document, and looks
at each answer for what all answers have, and for what the document says of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from scheduler.database import Database
from scheduler.settings import Settings
from tests.web.conftest import Answer, Caller, Service, start
from tests.web.walk import ENDS_ITS_CALLER, JSON, Operation, World, operations, paths, unknown_ids
from web.middlewares.idempotency import REPLAYED
from web.routing import API_PREFIX

OPERATIONS = operations()
CHANGING = [each for each in OPERATIONS if each.method in ("PATCH", "PUT", "DELETE")]
NOT_HIDDEN = {"get_avatar"}
"""Anybody who is signed in sees everybody's picture."""
REFUSED = {"verify_phone", "send_phone_code"}
"""For want of a gateway, and of the code that it would bring."""


@pytest.fixture
async def world(settings: Settings, database: Database) -> AsyncIterator[World]:
    """With limits that are on, and far away."""
    limits = {"rate_limit_user": "100000/min", "rate_limit_password": "100000/min"}
    runner, base = await start(settings.model_copy(update=limits), database)
    async with aiohttp.ClientSession() as session:
        service = Service(base, settings, database, session, Caller(base, session))
        yield await World.create(service)
    await runner.cleanup()


def test_the_walk_knows_its_way() -> None:
    """A route that is not in the document would be walked past."""
    assert len(OPERATIONS) > 70 and {each.name for each in CHANGING} > {"change_task", "delete_task", "change_me"}
    assert all(each.route.path == each.path for each in OPERATIONS)


@pytest.mark.heavy(on="sqlite")
async def test_who_may_not_is_told_the_same_everywhere(world: World) -> None:
    """401 without credentials, 403 on an administrator's routes whatever the id, 404 for what is somebody else's, is
    not there, or is no id at all."""
    nobody = world.service.nobody
    for operation in OPERATIONS:
        if operation.is_signed_in:
            answer = await world.call(operation, nobody, unknown_ids(operation.path))
            world.expect(answer.json["code"] == "unauthenticated", f"{operation}: {answer.text}")
            world.expect(answer.headers.get("WWW-Authenticate") == "Bearer", f"{operation}: 401 without its header")
        if operation.is_for_admins:
            for path in (unknown_ids(operation.path), unknown_ids(operation.path, "x"), await world.place(operation)):
                answer = await world.call(operation, world.carol, path, **await world.body(operation))
                world.expect(answer.status == 403, f"{operation}: {answer.status} for somebody who is no administrator")
        if operation.ids:
            strangers = [] if operation.is_for_admins or operation.name in NOT_HIDDEN else [world.carol]
            wrong = [unknown_ids(operation.path), unknown_ids(operation.path, "x")]
            tries = [(world.caller(operation), path) for path in wrong]
            tries += [(stranger, await world.place(operation)) for stranger in strangers]
            details = set()
            for caller, path in tries:
                answer = await world.call(operation, caller, path, **await world.body(operation))
                world.expect(answer.status == 404, f"{operation}: {answer.status} for {path}: {answer.text}")
                details.add(answer.json["detail"] if answer.status == 404 else None)
            world.expect(len(details) == 1, f"{operation}: 404s that can be told apart: {details}")
    assert world.answers > 150
    world.done()


@pytest.mark.heavy(on="sqlite")
async def test_what_is_not_taken_is_refused_everywhere(world: World) -> None:
    """An unknown parameter or field, a body that is none or of another kind, a method that is not there."""
    for operation in OPERATIONS:
        caller, path = world.caller(operation), unknown_ids(operation.path)
        body = await world.body(operation)
        if operation.path.startswith(API_PREFIX):
            # Where the id is looked up first, it has to be a real one.
            there = await world.place(operation) if operation.ids else path
            refused = await world.call(operation, caller, f"{there}?unknown_one=1", **body)
            world.expect(faults(refused) == ["?unknown_one"], f"{operation}: ?unknown_one: {refused.text}")
        if operation.takes_json:
            refused = await world.call(operation, caller, path, json={**body["json"], "unknown_one": None})
            world.expect("/unknown_one" in faults(refused), f"{operation}: an unknown field: {refused.text}")
            for data, media_type, status in bad_bodies(operation):
                answer = await world.call(operation, caller, path, data=data, headers={"Content-Type": media_type})
                world.expect(answer.status == status, f"{operation}: {data!r} as {media_type}: {answer.text}")
    for path, methods in paths(OPERATIONS).items():
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"} - methods:
            if method == "HEAD" and "GET" in methods:
                continue
            answer = await world.alice(method, "/" + unknown_ids(path))
            allowed = set(answer.headers.get("Allow", "").split(","))
            world.expect(
                (answer.status, allowed) == (405, methods | ({"HEAD"} if "GET" in methods else set())),
                f"{method} {path}: {answer.status}, Allow: {allowed}",
            )
    world.done()


def bad_bodies(operation: Operation) -> list[tuple[bytes, str, int]]:
    """Bodies, their media types, and the status they get."""
    bad = [
        (b"{}", "text/plain", 415),
        (b"{}", "application/json; charset=utf-16", 415),
        (b"{", JSON, 400),
        (b'{"a": "\xff"}', JSON, 400),
        (b"[]", JSON, 422),
        (b'{"a\x00": 1}', JSON, 400),
    ]
    return bad + ([(b"", JSON, 400)] if operation.described["requestBody"]["required"] else [])


def faults(answer: Answer) -> list[str]:
    """Where a 422 says that something is wrong."""
    return [each["field"] for each in answer.json["errors"]] if answer.status == 422 else []


@pytest.mark.heavy(on="mariadb")
async def test_single_resources_have_etags_and_lost_updates_are_refused(world: World) -> None:
    """304 for what one has, 412 for a change of what is no longer as one saw it, with nothing changed."""
    shown = {each.path: each for each in OPERATIONS if each.method == "GET" and each.gives("ETag")}
    shown = {path: each for path, each in shown.items() if "202" not in each.described["responses"]}  # there later
    for operation in shown.values():
        path, caller = await world.place(operation), world.caller(operation)
        if operation.name == "get_avatar":
            path = await own_picture(world)
        first = await world.call(operation, caller, path)
        world.expect(first.status == 200, f"{operation}: {first.text}")
        tag = first.headers.get("ETag", "")
        world.expect(tag.startswith('"') and tag.endswith('"') and len(tag) > 2, f"{operation}: ETag {tag}")
        for given in (tag, f'W/{tag}, "x"', "*"):
            again = await world.call(operation, caller, path, headers={"If-None-Match": given})
            unchanged = (again.status, again.raw, again.headers.get("ETag"))
            world.expect(unchanged == (304, b"", tag), f"{operation}: {unchanged} for {given}")
        other = await world.call(operation, caller, path, headers={"If-None-Match": '"other"'})
        world.expect(other.status == 200, f"{operation}: {other.status} for another tag")
    for operation in CHANGING:
        path, caller = await world.place(operation), world.caller(operation)
        before = await seen(world, shown, operation, path)
        for given in ('"other"', f"W/{before}" if before else 'W/"other"', "nonsense"):
            refused = await world.call(
                operation, caller, path, headers={"If-Match": given}, **await world.body(operation)
            )
            world.expect(refused.status == 412, f"{operation}: {refused.status} for If-Match: {given}")
        world.expect(await seen(world, shown, operation, path) == before, f"{operation}: changed in spite of a 412")
        match = {"If-Match": f'"other", {before}' if before else "*"}
        done = await world.call(operation, caller, path, headers=match, **await world.body(operation))
        world.expect(done.status < 300, f"{operation}: {done.status} with the right If-Match: {done.text}")
        await world.after(operation)
    assert len(shown) >= 6
    world.done()


async def seen(world: World, shown: dict[str, Operation], operation: Operation, path: str) -> str | None:
    """The ETag of what the operation is about to change, where one can look at that."""
    if operation.path not in shown:
        return None
    return str((await world.call(shown[operation.path], world.caller(operation), path)).headers["ETag"])


async def own_picture(world: World) -> str:
    """Where Alice's picture is."""
    set_picture = next(each for each in OPERATIONS if each.name == "set_my_avatar")
    answer = await world.call(set_picture, world.alice, set_picture.path, **await world.body(set_picture))
    return str(answer.json["avatar_url"]).partition("?")[0].removeprefix(world.service.settings.public_url)


@pytest.mark.heavy(on="mariadb")
async def test_every_post_can_be_sent_again(world: World) -> None:
    """With the same key the same answer, byte for byte, and the key is for no other request."""
    taking = [each for each in OPERATIONS if each.method == "POST" and each.is_signed_in]
    taking = [each for each in taking if not each.path.startswith(f"{API_PREFIX}/auth/")]
    assert len(taking) >= 20
    for number, operation in enumerate(taking):
        world.expect("Idempotency-Key" in operation.parameters, f"{operation}: the document names no Idempotency-Key")
        path, body, caller = await world.place(operation), await world.body(operation), world.caller(operation)
        key = {"Idempotency-Key": f"key-{number}"}
        first = await world.call(operation, caller, path, headers=key, **body)
        world.expect((first.status < 300) == (operation.name not in REFUSED), f"{operation}: {first.text}")
        if operation.name in ENDS_ITS_CALLER:
            await world.after(operation)
            continue
        again = await world.call(operation, caller, path, headers=key, **body)
        world.expect((again.status, again.raw) == (first.status, first.raw), f"{operation}: {again.text}")
        world.expect(
            again.headers.get(REPLAYED) == "true" and REPLAYED not in first.headers, f"{operation}: {REPLAYED}"
        )
        for name in ("Location", "ETag", "Content-Type", "Cache-Control"):
            world.expect(again.headers.get(name) == first.headers.get(name), f"{operation}: another {name}")
        others = [{"path": f"{path}?other=1", **body}]
        if "json" in body:
            others.append({"path": path, "json": {**body["json"], "unknown_one": 1}})
        for other in others:
            refused = await world.call(operation, caller, headers=key, **other)
            code = refused.json.get("code") if refused.json else None
            world.expect(code == "idempotency_key_reused", f"{operation}: {refused.text}")
    world.done()


@pytest.mark.heavy(on="sqlite")
async def test_lists_come_in_pages(world: World) -> None:
    """`limit`, `cursor` and `count` mean the same on each list."""
    lists = [each for each in OPERATIONS if "cursor" in each.parameters]
    assert len(lists) > 12
    for operation in lists:
        path, caller = await world.place(operation), world.caller(operation)
        needed: dict[str, Any] = {"q": "a"} if operation.parameters.get("q", {}).get("required") else {}
        answer = await world.call(operation, caller, path, params=needed | {"count": "true", "limit": "1"})
        world.expect(answer.status == 200, f"{operation}: {answer.text}")
        page = answer.json
        world.expect(len(page["items"]) <= 1 and page["total"] >= len(page["items"]), f"{operation}: {answer.text}")
        world.expect(("Link" in answer.headers) == (page["next_cursor"] is not None), f"{operation}: Link")
        for name, values, status in (("limit", ("0", "201", "-1", "x", ""), 422), ("cursor", ("x", "AAAA", "é"), 400)):
            for value in values:
                refused = await world.call(operation, caller, path, params=needed | {name: value})
                world.expect(refused.status == status, f"{operation}: {refused.status} for {name}={value}")
    world.done()
