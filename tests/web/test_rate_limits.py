"""Rate limits over HTTP: who is counted where, what the answers say, and who can't get round them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from tests.conftest import Stack
from tests.web.conftest import PASSWORD, Caller, Service, assert_problem, start
from web.handlers import ROUTE_TABLES
from web.middlewares.rate_limit import bucket_of

Limited = Callable[..., Coroutine[Any, Any, Caller]]

HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


@pytest.fixture
async def limited(service: Service) -> AsyncIterator[Limited]:
    """Starts one more web process on the same stack, with settings of its own; gives nobody at its door."""
    runners = []

    async def make(**settings: Any) -> Caller:
        runner, base = await start(service.settings.model_copy(update=settings), service.database)
        runners.append(runner)
        return Caller(base, service.session)

    yield make
    for runner in runners:
        await runner.cleanup()


def at(door: Caller, person: Caller) -> Caller:
    """The same person at another process's door."""
    return Caller(door.base, person.session, person.token, person.user, person.refresh_token)


def told(answer: Any) -> tuple[int, ...]:
    return tuple(int(answer.headers[name]) for name in HEADERS)


async def wrong_login(door: Caller, **options: Any) -> Any:
    return await door("POST", "/auth/login", json={"email": "nobody@example.com", "password": "x" * 12}, **options)


# -- by person -----------------------------------------------------------------------------------------------


async def test_a_persons_requests_are_counted_together_in_all_processes(service: Service, limited: Limited) -> None:
    first, second = await limited(rate_limit_user="5/h"), await limited(rate_limit_user="5/h")
    alice, bob = await service.person("Alice"), await service.person("Bob")
    logged_in = await first("POST", "/auth/login", json={"email": alice.user["email"], "password": PASSWORD})
    elsewhere = Caller(first.base, first.session, logged_in.json["access_token"])
    answers = [
        await at(first, alice)("GET", "/users/me"),
        await at(second, alice)("GET", "/tasks"),
        await elsewhere("GET", "/users/me"),
        await at(second, alice)("GET", "/tasks/none"),
        await at(first, alice)("POST", "/tasks", json={"title": ""}),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 422]
    assert [told(answer) for answer in answers] == [
        (5, 4, 720),
        (5, 3, 1440),
        (5, 2, 2160),
        (5, 1, 2880),
        (5, 0, 3600),
    ]
    for door in (first, second):
        refused = await at(door, alice)("GET", "/users/me")
        assert_problem(refused, 429, "rate_limited")
        assert told(refused) == (5, 0, 720)
        assert refused.headers["Retry-After"] == "720"
    assert (await at(first, bob)("GET", "/users/me")).status == 200


async def test_what_nobody_need_be_signed_in_for_is_not_counted(service: Service, limited: Limited) -> None:
    door = await limited(rate_limit_user="1/h", rate_limit_password="1/h")
    alice = at(door, await service.person())
    for path in ("//healthz", "//openapi.json", "//act/done", "//nowhere"):
        for _ in range(3):
            answer = await alice("GET", path)
            assert answer.status != 429 and "RateLimit-Limit" not in answer.headers
    assert_problem(await door("GET", "/users/me"), 401, "unauthenticated")
    assert "RateLimit-Limit" not in (await door("GET", "/users/me")).headers
    refreshed = await door("POST", "/auth/refresh-token", json={"refresh_token": alice.refresh_token})
    assert refreshed.status == 200
    assert (await alice("GET", "/users/me")).status == 200


async def test_a_token_that_no_longer_works_uses_up_nobodys_limit(service: Service, limited: Limited) -> None:
    door = await limited(rate_limit_user="3/h")
    alice = await service.person()
    again = await service.nobody("POST", "/auth/login", json={"email": alice.user["email"], "password": PASSWORD})
    assert (await alice("POST", "/auth/logout")).status == 204
    for _ in range(5):
        assert_problem(await at(door, alice)("GET", "/users/me"), 401, "token_revoked")
    # The first of them was counted, as nobody knew it yet.
    owner = Caller(door.base, door.session, again.json["access_token"])
    assert told(await owner("GET", "/users/me"))[1] == 1


async def test_off(service: Service, limited: Limited) -> None:
    door = await limited(rate_limit_user="off", rate_limit_password="off")
    alice = at(door, await service.person())
    answer = await alice("GET", "/users/me")
    assert answer.status == 200 and not set(HEADERS) & set(answer.headers)
    assert not set(HEADERS) & set((await wrong_login(door)).headers)
    assert (await alice("POST", "/auth/logout")).status == 204
    assert_problem(await alice("GET", "/users/me"), 401, "token_revoked")


# -- by address ----------------------------------------------------------------------------------------------


async def test_all_password_routes_share_one_bucket_of_an_address(service: Service, limited: Limited) -> None:
    alice = await service.person()
    door = await limited(rate_limit_password="8/h")
    mine = at(door, alice)
    for call in (
        wrong_login(door),
        door("POST", "/auth/login", data={"email": "a", "password": "b"}),
        door("POST", "/auth/signup", json={}),
        door("POST", "/auth/forgot-password", json={"email": "nobody@example.com"}),
        door("POST", "/auth/reset-password", json={"token": "x", "password": "y" * 12}),
        mine("POST", "/auth/change-password", json={"current_password": "x", "password": "y" * 12}),
        mine("POST", "/auth/confirm-2fa", json={"otp": "000000"}),
        mine("POST", "/auth/disable-2fa", json={"password": "x", "otp": "000000"}),
    ):
        answer = await call
        assert 400 <= answer.status < 429 or answer.status in (202, 422), answer.text
        assert told(answer)[0] == 8
    for refused in (
        await wrong_login(door),
        await mine("POST", "/auth/enable-2fa"),
        await door("POST", "//act/reset?token=x", data={"password": "y" * 12}),
    ):
        assert refused.status == 429
        assert told(refused) == (8, 0, 450) and refused.headers["Retry-After"] == "450"
    right = await door("POST", "/auth/login", json={"email": alice.user["email"], "password": PASSWORD})
    assert_problem(right, 429, "rate_limited")
    # What guesses no password goes on.
    assert (await mine("GET", "/users/me")).status == 200
    assert (await mine("POST", "/auth/logout")).status == 204


async def test_who_is_not_signed_in_is_counted_before_that_is_said(limited: Limited) -> None:
    door = await limited(rate_limit_password="2/h")
    body = {"current_password": "x", "password": "y" * 12}
    for token in (None, "not.a.token", "pun_t_x"):
        caller = Caller(door.base, door.session, token)
        answer = await caller("POST", "/auth/change-password", json=body)
        assert_problem(answer, *((401, "unauthenticated") if token != "pun_t_x" else (429, "rate_limited")))


async def test_each_process_alone_while_redis_is_away(stack: Stack, limited: Limited) -> None:
    door = await limited(rate_limit_password="3/h")
    assert told(await wrong_login(door)) == (3, 2, 1200)
    stack.redis.pause()
    try:
        assert [(await wrong_login(door)).status for _ in range(4)] == [401, 401, 429, 429]
    finally:
        stack.redis.resume()


def test_every_route_that_takes_a_password_or_a_code_is_counted_by_address() -> None:
    """The contract's: sign-in and all about it. (Where one who is signed in confirms something with the password, the
    account has a lock of its own.) Whoever adds one is reminded here."""
    secrets = {"password", "current_password", "otp"}
    found = {
        (route.method, route.path)
        for table in ROUTE_TABLES
        for route in table.routes
        if route.body is not None
        and secrets & route.body.model_fields.keys()
        and not route.path.startswith("/api/v1/users")
    }
    flagged = {(route.method, route.path) for table in ROUTE_TABLES for route in table.routes if route.password}
    bodiless = {("POST", "/api/v1/auth/enable-2fa"), ("POST", "/api/v1/auth/forgot-password")}
    assert flagged == found | bodiless
    assert {path for _, path in flagged} >= {
        "/api/v1/auth/login",
        "/api/v1/auth/signup",
        "/api/v1/auth/reset-password",
        "/api/v1/auth/change-password",
        "/api/v1/auth/confirm-2fa",
        "/api/v1/auth/disable-2fa",
        "/act/reset",
    }


# -- whose address -------------------------------------------------------------------------------------------


async def test_forwarded_addresses_count_only_behind_a_trusted_proxy(limited: Limited) -> None:
    open_door = await limited(rate_limit_password="2/h")
    answers = [await wrong_login(open_door, headers={"X-Forwarded-For": f"192.0.2.{each}"}) for each in range(3)]
    assert [answer.status for answer in answers] == [401, 401, 429]


async def test_behind_a_proxy_each_caller_has_their_own(stack: Stack, limited: Limited) -> None:
    door = await limited(rate_limit_password="2/h", trusted_proxies=("127.0.0.0/8", "::1", "10.0.0.0/8"))

    async def tries(*forwarded: str) -> list[int]:
        headers = {"X-Forwarded-For": ", ".join(forwarded)}
        return [(await wrong_login(door, headers=headers)).status for _ in range(3)]

    assert await tries("192.0.2.1") == [401, 401, 429]
    assert await tries("192.0.2.2") == [401, 401, 429]
    # What the caller writes in front of it makes no other caller of them, nor does what is no address.
    assert await tries("198.51.100.7", "192.0.2.1") == [429] * 3
    assert await tries("198.51.100.7, 192.0.2.1", "10.1.1.1") == [429] * 3
    assert await tries("unknown", "192.0.2.2") == [429] * 3
    assert await tries("::ffff:192.0.2.2") == [429] * 3
    # An IPv6 network is one caller.
    assert await tries("2001:db8:0:1::1") == [401, 401, 429]
    assert await tries("2001:db8:0:1:ffff::2") == [429] * 3
    assert await tries("2001:db8:0:2::1") == [401, 401, 429]


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "20010db800000000/64"),
        ("2001:DB8:0:0:f::", "20010db800000000/64"),
        ("fe80::1%eth0", "fe80000000000000/64"),
        ("::1", "0000000000000000/64"),
        (None, "local"),
        ("", "local"),
        ("unix:", "local"),
    ],
)
def test_buckets_of_addresses(address: str | None, bucket: str) -> None:
    assert bucket_of(address) == bucket
