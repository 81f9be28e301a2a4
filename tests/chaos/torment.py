"""What is done to processes and servers: at random, for so long, each kind from a generator of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

from tests.chaos.stage import Stage, WorkerProcess

LONGEST_SUSPENSION_S = 20.0
LONGEST_WITHOUT_REDIS_S = 4.0
LONGEST_WITHOUT_DATABASE_S = 2.0
MOST_SUSPENDED = 2
SPARED = 0.8
"""The part of the faults from which a worker is spared while it starts, or while only half of all are at work: where
starting takes long, nobody would be."""


async def torment(stage: Stage) -> None:
    """Torment everything for as long as the plan says; when this returns, all servers run and nobody is suspended."""
    until = time.monotonic() + stage.plan.seconds
    kinds = [_torment_workers(stage, until), _torment_redis(stage, until)]
    if stage.stack.mariadb is not None:
        kinds.append(_torment_database(stage, until))
    try:
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(kind)
    finally:
        for worker in stage.all_workers:
            worker.resume()


async def _torment_workers(stage: Stage, until: float) -> None:
    rng = _rng(stage, "workers")
    async with asyncio.TaskGroup() as suspensions:
        async for _ in _now_and_then(rng, stage.plan.mean_between_worker_faults_s, until):
            worker = rng.choice(stage.slots)
            what = rng.choices(("SIGKILL", "SIGTERM", "SIGSTOP"), (50, 25, 25))[0]
            # Drawn first, so that what follows from the seed does not depend on who is alive.
            suspension_s = rng.uniform(0.5, LONGEST_SUSPENSION_S)
            is_spared = rng.random() < SPARED and (not worker.has_started or _are_few_at_work(stage))
            if is_spared or not worker.is_alive:
                continue
            if what == "SIGKILL":
                worker.kill()
            elif worker.signalled is not None or worker.suspended_since is not None:
                continue
            elif what == "SIGTERM":
                worker.terminate()
            elif sum(each.suspended_since is not None for each in stage.slots) < MOST_SUSPENDED:
                worker.suspend()
                suspensions.create_task(_resume_later(worker, suspension_s, until))
            else:
                continue
            stage.note(f"worker: {what}", worker=worker.log_path.stem, pid=worker.process.pid)


def _are_few_at_work(stage: Stage) -> bool:
    at_work = sum(
        worker.is_alive and worker.has_started and worker.signalled is None and worker.suspended_since is None
        for worker in stage.slots
    )
    return 2 * at_work <= stage.plan.workers


async def _resume_later(worker: WorkerProcess, after_s: float, until: float) -> None:
    await asyncio.sleep(min(after_s, max(0.0, until - time.monotonic())))
    worker.resume()


async def _torment_redis(stage: Stage, until: float) -> None:
    rng, redis = _rng(stage, "redis"), stage.stack.redis
    async for _ in _now_and_then(rng, stage.plan.mean_between_redis_faults_s, until):
        away_s = rng.uniform(0, LONGEST_WITHOUT_REDIS_S)
        if rng.random() < 0.6:
            stage.note("Redis: FLUSHALL")
            await asyncio.to_thread(redis.flushall)
        else:
            stage.note("Redis: SIGKILL, restarted empty", away_s=f"{away_s:.1f}")
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(away_s)
            await asyncio.to_thread(redis.start)


async def _torment_database(stage: Stage, until: float) -> None:
    rng, server = _rng(stage, "database"), stage.stack.mariadb
    assert server is not None
    async for _ in _now_and_then(rng, stage.plan.mean_between_database_kills_s, until):
        away_s = rng.uniform(0, LONGEST_WITHOUT_DATABASE_S)
        stage.note("MariaDB: SIGKILL, restarted", away_s=f"{away_s:.1f}")
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(server.start)


async def _now_and_then(rng: random.Random, mean_s: float, until: float) -> AsyncIterator[None]:
    """At random moments, so far apart in the mean, until it is over."""
    while True:
        pause_s = min(rng.expovariate(1 / mean_s), 3 * mean_s)
        if time.monotonic() + pause_s >= until:
            await asyncio.sleep(max(0.0, until - time.monotonic()))
            return
        await asyncio.sleep(pause_s)
        yield


def _rng(stage: Stage, of: str) -> random.Random:
    return random.Random(f"{stage.plan.seed}/torment/{of}")
