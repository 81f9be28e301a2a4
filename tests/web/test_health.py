"""Is it alive, can it serve, and what is said while a part is away."""

from __future__ import annotations

import time

import pytest

from tests.conftest import Stack
from tests.web.conftest import Service, assert_problem


async def test_all_is_well(service: Service) -> None:
    assert (await service.nobody("GET", "//healthz")).json == {"status": "ok"}
    ready = await service.nobody("GET", "//readyz")
    assert ready.status == 200
    assert ready.json == {"status": "ok", "checks": {"database": "ok", "redis": "ok", "schema": "ok"}}


@pytest.mark.heavy(on="mariadb")
async def test_redis_hangs(service: Service, stack: Stack) -> None:
    stack.redis.pause()
    try:
        began = time.monotonic()
        ready = await service.nobody("GET", "//readyz")
        assert ready.status == 503 and time.monotonic() - began < 4
        assert ready.json == {
            "status": "unavailable",
            "checks": {"database": "ok", "redis": "unavailable", "schema": "ok"},
        }
        assert (await service.nobody("GET", "//healthz")).status == 200
        assert (await service.person()).token  # nothing here needs Redis
    finally:
        stack.redis.resume()


async def test_the_database_hangs_and_comes_back(service: Service, stack: Stack) -> None:
    if stack.mariadb is None:
        return
    alice = await service.person()
    stack.mariadb.pause()
    try:
        began = time.monotonic()
        ready = await service.nobody("GET", "//readyz")
        assert ready.status == 503 and time.monotonic() - began < 4
        assert ready.json["checks"]["database"] == "unavailable"
        began = time.monotonic()
        answer = await alice("GET", "/users/me")
        assert time.monotonic() - began < 15
        assert_problem(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        stack.mariadb.resume()
    assert (await alice("GET", "/users/me")).status == 200


async def test_the_database_is_killed_and_comes_back(service: Service, stack: Stack) -> None:
    if stack.mariadb is None:
        return
    alice = await service.person()
    stack.mariadb.kill()
    try:
        answer = await alice("PATCH", "/users/me", json={"name": "B"})
        assert_problem(answer, 503, "unavailable")
    finally:
        stack.mariadb.ensure_running()
    assert (await alice("GET", "/users/me")).json["name"] == "Alice"
