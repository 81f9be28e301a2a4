"""arq with a job that does nothing.

    python arq_noop.py fill 20000                      queues as many jobs
    python arq_noop.py work [--max-jobs 1000 --poll-delay 0.01]

With PEER_REDIS and PEER_STAMPS. Without options the worker has arq's defaults. Log lines of single jobs are off
(`arq` on the command line prints two a job, and is slower), and the loop is uvloop's, as ours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

import uvloop
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker
from stamps import stamp

AT_ONCE = 50


async def noop(context: dict[str, Any]) -> None:
    """What is queued."""
    stamp()


async def fill(redis: RedisSettings, count: int) -> None:
    """Queue `count` jobs, some at once."""
    pool = await create_pool(redis)
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(pool.enqueue_job("noop") for _ in range(min(AT_ONCE, count - start))))
    await pool.aclose()


async def work(redis: RedisSettings, options: dict[str, Any]) -> None:
    """Work until SIGTERM."""
    worker = Worker(functions=[noop], redis_settings=redis, **options)
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        pass
    finally:
        await worker.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fill").add_argument("count", type=int)
    working = commands.add_parser("work", argument_default=argparse.SUPPRESS)
    working.add_argument("--max-jobs", type=int)
    working.add_argument("--poll-delay", type=float)
    options = vars(parser.parse_args())
    settings = RedisSettings.from_dsn(os.environ["PEER_REDIS"])
    if options.pop("command") == "fill":
        uvloop.run(fill(settings, options["count"]))
    else:
        uvloop.run(work(settings, options))
