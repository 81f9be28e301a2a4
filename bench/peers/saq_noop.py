"""SAQ with a job that does nothing.

    python saq_noop.py fill 20000                      queues as many jobs
    python saq_noop.py work [--concurrency 100]

With PEER_REDIS and PEER_STAMPS. Without options the worker has SAQ's defaults; the loop is uvloop's, as ours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

import uvloop
from saq import Queue, Worker
from stamps import stamp

AT_ONCE = 50


async def noop(context: dict[str, Any]) -> None:
    """What is queued."""
    stamp()


async def fill(count: int) -> None:
    """Queue `count` jobs, some at once."""
    queue = Queue.from_url(os.environ["PEER_REDIS"])
    await queue.connect()
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(queue.enqueue("noop") for _ in range(min(AT_ONCE, count - start))))
    await queue.disconnect()


async def work(options: dict[str, Any]) -> None:
    """Work until SIGTERM."""
    # SAQ throttles its own operations to 20 unless told otherwise.
    queue = Queue.from_url(os.environ["PEER_REDIS"], max_concurrent_ops=max(20, options.get("concurrency", 0)))
    await queue.connect()
    await Worker(queue, functions=[noop], **options).start()
    await queue.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fill").add_argument("count", type=int)
    working = commands.add_parser("work", argument_default=argparse.SUPPRESS)
    working.add_argument("--concurrency", type=int)
    options = vars(parser.parse_args())
    if options.pop("command") == "fill":
        uvloop.run(fill(options["count"]))
    else:
        uvloop.run(work(options))
