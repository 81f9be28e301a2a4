"""A request that leaves runs to dispatch wakes the workers once it is committed; no other request does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from models import Run
from scheduler.clock import now
from scheduler.redis_client import redis_client
from scheduler.runs.wake import CHANNEL, PATIENCE_S
from tests.conftest import Stack
from tests.factories import add_rows, run_row
from tests.web.conftest import Service, assert_problem


@pytest.fixture
async def heard(stack: Stack) -> AsyncIterator[Any]:
    """Who listens as a worker does: `await heard(seconds)` says how often it was called in that time."""
    client = redis_client(stack.redis_url, timeout_s=5)
    async with client.pubsub() as listener:
        await listener.subscribe(CHANNEL)

        async def count(seconds: float) -> int:
            calls, until = 0, time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                message = await listener.get_message(timeout=left)
                calls += message is not None and message["type"] == "message"
            return calls

        assert await count(0.3) == 0
        yield count
    await client.aclose()


@pytest.mark.heavy(on="mariadb")
async def test_asking_for_a_run_wakes_the_workers(service: Service, heard: Any) -> None:
    admin = await service.admin()
    assert await heard(0.2) == 0
    assert (await admin("POST", "/admin/jobs/reap/run")).status == 202
    assert await heard(0.5) == 1
    failed = run_row(now(), job="reap", state="failed")
    await add_rows(service.database, Run, [failed])
    assert (await admin("POST", f"/admin/runs/{failed['id']}/retry")).status == 202
    assert await heard(0.5) == 1


async def test_what_is_rolled_back_or_only_reads_wakes_nobody(service: Service, heard: Any) -> None:
    admin = await service.admin()
    key = {"Idempotency-Key": "k"}
    assert (await admin("POST", "/admin/jobs/reap/run", headers=key)).status == 202
    assert await heard(0.3) == 1
    assert_problem(await admin("POST", "/admin/jobs/cleanup/run", headers=key), 422, "idempotency_key_reused")
    assert_problem(await admin("POST", "/admin/jobs/none/run"), 404, "not_found")
    assert (await admin("GET", "/admin/runs")).status == 200
    assert (await admin("POST", "/tasks", json={"title": "T"})).status == 201
    assert await heard(0.5) == 0


@pytest.mark.heavy(on="mariadb")
async def test_no_answer_waits_for_redis(service: Service, stack: Stack) -> None:
    admin = await service.admin()
    await admin("POST", "/admin/jobs/reap/run")
    stack.redis.pause()
    try:
        began = time.monotonic()
        for _ in range(8):
            assert (await admin("POST", "/admin/jobs/reap/run")).status == 202
        assert time.monotonic() - began < 8 * PATIENCE_S / 2
    finally:
        stack.redis.resume()
    assert (await admin("GET", "/admin/runs?job=reap&count=true")).json["total"] == 9
