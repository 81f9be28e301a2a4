"""A short round of chaos; `make chaos` plays long ones with more of everything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.plan import Plan
from tests.chaos.round import play
from tests.conftest import Stack

pytestmark = [pytest.mark.heavy(on="mariadb"), pytest.mark.faults, pytest.mark.slow]

SHORT = Plan(
    seed=20261120,
    seconds=6,
    jobs=240,
    emails=100,
    requests=12,
    refused=0.0,
    cancels=16,
    queues=2,
    in_queue=4,
    minutely=3,
    people=40,
    workers=3,
    concurrency=15,
    settle_s=90,
    client_fault_rate=0.03,
    mean_between_worker_faults_s=1.0,
    mean_between_redis_faults_s=1.5,
    mean_between_database_kills_s=5.0,
)


@pytest.mark.timeout(SHORT.hard_limit_s + 30)
def test_nothing_is_lost_and_nothing_is_done_twice(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On SQLite without the faults of a database server and its clients: workers and Redis are killed all the same."""
    folder = tmp_path / "chaos"
    folder.mkdir()
    verdict = asyncio.run(play(SHORT, stack, folder))
    assert verdict.violations == []
    done, clients = (verdict.numbers[f"done {what}"] for what in ("to processes and servers", "at the database client"))
    assert done["worker: SIGKILL"] >= 1 and done["Redis: FLUSHALL"] >= 1
    if stack.mariadb is not None:
        assert done["MariaDB: SIGKILL, restarted"] >= 1
        assert sum(clients.values()) >= 3
    with capsys.disabled():
        seconds = verdict.numbers["time"]["seconds until all was at its end"]
        print(f"\n  [{stack.name}] {sum(done.values())} faults, {sum(clients.values())} of clients, {seconds} s to end")
