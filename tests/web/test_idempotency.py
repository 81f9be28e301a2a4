"""`Idempotency-Key` over HTTP: the answer of the first, byte for byte, whatever happened to it on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import aiohttp
import pytest
from aiohttp import web
from pydantic import BaseModel
from sqlalchemy import make_url, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import IdempotencyKey, Task
from scheduler.access import Actor
from scheduler.clock import now
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.errors import Conflict
from scheduler.idempotency import Claim, claim, fingerprint_of, release
from scheduler.identifiers import new_id
from scheduler.settings import Settings
from scheduler.tasks.create import create_task
from tests.conftest import Stack
from tests.services.stored import count, one
from tests.web.conftest import Answer, Caller, Service, assert_problem
from web.app import make_app
from web.middlewares.idempotency import REPLAYED
from web.responses import answer
from web.routing import RouteTable, add_routes
from web.server import Runner

OWN_HEADERS = {"X-Request-ID", "Date", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", REPLAYED}
"""What each answer has of its own, also one that is given again."""


def key(text: str = "the key") -> dict[str, str]:
    return {"Idempotency-Key": text}


def assert_again(first: Answer, again: Answer) -> None:
    """`again` is `first`, given again."""
    assert REPLAYED not in first.headers and again.headers[REPLAYED] == "true"
    assert (again.status, again.raw) == (first.status, first.raw)
    wanted = {name: value for name, value in first.headers.items() if name not in OWN_HEADERS}
    assert {name: value for name, value in again.headers.items() if name not in OWN_HEADERS} == wanted
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]


async def test_a_success_is_given_again_and_done_once(service: Service) -> None:
    alice = await service.person()
    body = {"title": "Größe 🪴", "reminders": [{"remind_at": "2030-01-01T00:00:00Z"}]}
    first = await alice("POST", "/tasks", json=body, headers=key())
    assert first.status == 201 and first.headers["Location"] and first.headers["ETag"] == '"1"'
    assert (await alice("PATCH", f"/tasks/{first.json['id']}", json={"title": "Other"})).status == 200
    assert_again(first, await alice("POST", "/tasks", json=body, headers=key()))
    assert await count(service.database, Task) == 1
    # What goes with the answer but is the request's own: its id.
    given = await alice("POST", "/tasks", json=body, headers=key() | {"X-Request-ID": "mine"})
    assert given.headers["X-Request-ID"] == "mine" and given.raw == first.raw


async def test_another_request_with_the_key_is_refused(service: Service) -> None:
    alice, bob = await service.person(), await service.person("Bob")
    made = await alice("POST", "/tasks", json={"title": "T"}, headers=key())
    assert made.status == 201
    for path, body in (
        ("/tasks", {"title": "Other"}),
        ("/tasks", {"title": 1}),  # whatever else is wrong with it
        ("/tasks?x=1", {"title": "T"}),
        (f"/tasks/{made.json['id']}/reminders", {"title": "T"}),
        (f"/tasks/{uuid4()}/reminders", {"title": "T"}),
        ("/schedules", {"title": "T"}),
    ):
        assert_problem(await alice("POST", path, json=body, headers=key()), 422, "idempotency_key_reused")
    not_json = {"Content-Type": "text/plain"}
    refused = await alice("POST", "/tasks", data=b"{", headers=key() | not_json)
    assert_problem(refused, 422, "idempotency_key_reused")
    assert (await bob("POST", "/tasks", json={"title": "Other"}, headers=key())).status == 201
    assert await count(service.database, Task) == 2


async def test_refusals_are_given_again(service: Service) -> None:
    alice, bob = await service.person(), await service.person("Bob")
    task = (await bob("POST", "/tasks", json={"title": "Bob's"})).json["id"]
    cases = [
        ("not found", f"/tasks/{task}/restore", None, 404),
        ("malformed id", "/tasks/x/restore", None, 404),
        ("not valid", "/tasks", {"title": ""}, 422),
        ("no media type", "/tasks", None, 415),
    ]
    for name, path, body, status in cases:
        first = await alice("POST", path, json=body, headers=key(name))
        assert first.status == status
        again = await alice("POST", path, json=body, headers=key(name))
        assert_again(first, again)
        assert again.json["request_id"] == first.headers["X-Request-ID"]
    first = await bob("POST", f"/tasks/{task}/restore", headers=key())
    assert_problem(first, 409, "already_restored")
    assert (await bob("DELETE", f"/tasks/{task}")).status == 204
    assert_again(first, await bob("POST", f"/tasks/{task}/restore", headers=key()))


async def test_while_the_first_is_running(service: Service) -> None:
    alice = await service.person()
    claimed = await claim(
        service.database,
        actor=Actor(user_id=UUID(alice.user["id"]), role=alice.user["role"]),
        key="the key",
        fingerprint=fingerprint_of(method="POST", path="/api/v1/tasks", body=b'{"title":"T"}'),
        encryption=Encryption(service.settings.secret_keys),
        now=now(),
    )
    assert isinstance(claimed, Claim)
    json = {"Content-Type": "application/json"}
    refused = await alice("POST", "/tasks", data=b'{"title":"T"}', headers=key() | json)
    assert_problem(refused, 409, "idempotency_in_progress")
    async with service.database.write() as session:
        await release(session, claim=claimed)
    assert (await alice("POST", "/tasks", data=b'{"title":"T"}', headers=key() | json)).status == 201


async def test_twenty_at_once_do_it_once(service: Service) -> None:
    alice = await service.person()
    answers = await asyncio.gather(*(alice("POST", "/tasks", json={"title": "T"}, headers=key()) for _ in range(20)))
    made = [each for each in answers if each.status == 201]
    assert made and len({each.raw for each in made}) == 1
    assert sum(REPLAYED not in each.headers for each in made) == 1
    for each in answers:
        if each.status != 201:
            assert_problem(each, 409, "idempotency_in_progress")
    assert await count(service.database, Task) == 1


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("bad", ["", "x" * 256, "é", "a\tb"])
async def test_keys_that_are_none(service: Service, bad: str) -> None:
    alice = await service.person()
    assert_problem(await alice("POST", "/tasks", json={"title": "T"}, headers=key(bad)), 400, "bad_request")
    assert await count(service.database, Task) == 0


@pytest.mark.heavy(on="mariadb")
async def test_where_it_does_not_count(service: Service) -> None:
    alice = await service.person()
    login = {"email": alice.user["email"], "password": "correct horse battery"}
    answers = [await alice("POST", "/auth/login", json=login, headers=key()) for _ in range(2)]
    assert answers[0].json["refresh_token"] != answers[1].json["refresh_token"]
    for name in ("One", "Two"):
        changed = await alice("PATCH", "/users/me", json={"name": name}, headers=key())
        assert changed.json["name"] == name
    unknown = await service.nobody("POST", "/tasks", json={"title": "T"}, headers=key())
    assert_problem(unknown, 401, "unauthenticated")
    assert await count(service.database, IdempotencyKey) == 0


async def test_what_was_not_read_whole_does_not_use_the_key_up(service: Service) -> None:
    alice = await service.person()
    big = b'{"title": "' + b"x" * (1024 * 1024) + b'"}'
    json = {"Content-Type": "application/json"}
    assert_problem(await alice("POST", "/tasks", data=big, headers=key() | json), 413, "too_large")
    assert (await alice("POST", "/tasks", json={"title": "T"}, headers=key())).status == 201


@pytest.mark.faults
async def test_whatever_becomes_of_the_database_each_is_done_once(
    service: Service, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are cut in the middle of commits, and the server is killed; people insist, with the same key."""
    if stack.mariadb is None:
        return
    mariadb, name = stack.mariadb, make_url(stack.database_url).database or ""
    # Sooner than in life: some of those that are given up on are still at work then, and must not have their way.
    monkeypatch.setattr("scheduler.idempotency.GIVEN_UP", timedelta(seconds=1))
    alice = await service.person()
    keys = [f"key {number}" for number in range(60)]
    statuses: Counter[int] = Counter()

    async def insist(text: str) -> Answer:
        while True:
            answer = await alice("POST", "/tasks", json={"title": text}, headers=key(text))
            statuses[answer.status] += 1
            if answer.status == 201:
                return answer
            assert answer.status in (409, 429, 503), answer.text
            await asyncio.sleep(0.2)

    async def torment() -> None:
        for _ in range(8):
            await asyncio.to_thread(mariadb.disconnect_all, name)
            await asyncio.sleep(0.05)
        mariadb.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(mariadb.ensure_running)

    async with asyncio.timeout(90):
        answers, _ = await asyncio.gather(asyncio.gather(*map(insist, keys)), torment())
    assert statuses[503] > 0, statuses
    async with service.database.read() as session:
        made = (await session.execute(select(Task.id, Task.title))).all()
    assert sorted(row.title for row in made) == sorted(keys)
    for text, first in zip(keys[:10], answers, strict=False):
        again = await alice("POST", "/tasks", json={"title": text}, headers=key(text))
        assert (again.raw, again.headers.get(REPLAYED)) == (first.raw, "true")


# -- routes that fail as one wants ---------------------------------------------------------------------------


class Wanted(BaseModel):
    """What the route shall do after it has made a task."""

    after: str


route = RouteTable("Tests")
_calls: list[str] = []


async def _do(session: AsyncSession, actor: Actor, after: str, now: datetime) -> web.Response:
    _calls.append(after)
    await create_task(session, actor=actor, values={"title": after}, now=now)
    if after == "fail" and len(_calls) == 1:
        raise ZeroDivisionError("as it was told to")
    if after == "too many":
        return answer({"made": "none"}, status=429)
    if after == "refuse":
        raise Conflict("As it was told to.")
    if after == "lose the key":
        # As a request does that takes it over: this one was given up on.
        await session.execute(update(IdempotencyKey).values(owner=new_id()))
    return answer({"calls": len(_calls)}, status=201)


@route("POST", "/in-one", summary="One transaction", answers={201: None})
async def in_one(session: AsyncSession, actor: Actor, body: Wanted, now: datetime) -> web.Response:
    return await _do(session, actor, body.after, now)


@route("POST", "/own", summary="Transactions of its own", answers={201: None})
async def own_transaction(database: Database, actor: Actor, body: Wanted, now: datetime) -> web.Response:
    async with database.write() as session:
        return await _do(session, actor, body.after, now)


@route("POST", "/streamed", summary="No answer that could be kept", answers={200: None})
async def streamed(request: web.Request, actor: Actor) -> web.StreamResponse:
    _calls.append("streamed")
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x")
    return response


@pytest.fixture
async def failing(settings: Settings, database: Database) -> AsyncIterator[Caller]:
    """Alice, signed in to a service with the routes above."""
    _calls.clear()
    app = make_app(settings, database)
    add_routes(app, route.routes)
    runner = Runner(app, shutdown_timeout=2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        yield await Service(base, settings, database, session, Caller(base, session)).person()
    await runner.cleanup()


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("path", ["/in-one", "/own"])
async def test_a_failure_of_ours_frees_the_key(failing: Caller, database: Database, path: str) -> None:
    assert_problem(await failing("POST", path, json={"after": "fail"}, headers=key()), 500, "internal_error")
    assert await count(database, Task) == 0
    made = await failing("POST", path, json={"after": "fail"}, headers=key())
    assert made.json == {"calls": 2}
    assert_again(made, await failing("POST", path, json={"after": "fail"}, headers=key()))
    assert await count(database, Task) == 1


@pytest.mark.parametrize("path", ["/in-one", "/own"])
async def test_a_refusal_undoes_its_work_and_is_kept(failing: Caller, database: Database, path: str) -> None:
    first = await failing("POST", path, json={"after": "refuse"}, headers=key())
    assert_problem(first, 409, "conflict")
    assert_again(first, await failing("POST", path, json={"after": "refuse"}, headers=key()))
    assert _calls == ["refuse"] and await count(database, Task) == 0


async def test_what_was_done_and_not_kept_is_not_free_at_once(failing: Caller, database: Database) -> None:
    """The caller has the answer; whoever asks again within a minute is told to wait."""
    first = await failing("POST", "/own", json={"after": "lose the key"}, headers=key())
    assert first.status == 201
    again = await failing("POST", "/own", json={"after": "lose the key"}, headers=key())
    assert_problem(again, 409, "idempotency_in_progress")
    assert await count(database, Task) == 1


async def test_not_now_frees_the_key(failing: Caller, database: Database) -> None:
    for _ in range(2):
        assert (await failing("POST", "/own", json={"after": "too many"}, headers=key())).status == 429
    assert await count(database, IdempotencyKey) == 0 and len(_calls) == 2


async def test_who_was_given_up_on_changes_nothing(failing: Caller, database: Database) -> None:
    refused = await failing("POST", "/in-one", json={"after": "lose the key"}, headers=key())
    assert_problem(refused, 409, "idempotency_in_progress")
    assert await count(database, Task) == 0
    assert await count(database, IdempotencyKey) == 0  # and so, here, the one that took it over is rolled back too


async def test_an_answer_that_can_not_be_kept(failing: Caller, database: Database) -> None:
    for _ in range(2):
        streamed = await failing("POST", "/streamed", headers=key())
        assert streamed.raw == b"x" and REPLAYED not in streamed.headers
    assert await count(database, IdempotencyKey) == 0


async def test_an_answer_of_a_success_is_stored_with_it(failing: Caller, database: Database) -> None:
    """Read by hand: what stands there, and under which instant."""
    made = await failing("POST", "/in-one", json={"after": "work"}, headers=key())
    row = await one(database, IdempotencyKey)
    assert (row.status, row.headers) == (201, {"Content-Type": "application/json"})
    assert made.raw not in row.body
    assert row.created_at <= (await one(database, Task)).created_at
