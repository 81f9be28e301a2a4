"""Celery with a task that does nothing.

    python celery_noop.py 20000                        queues as many tasks
    celery -A celery_noop worker                       works

With PEER_REDIS, PEER_STAMPS and PEER_PREFETCH. Tuned as far as settings go: no results, no events.
"""

from __future__ import annotations

import os
import sys

import celery
from stamps import stamp

app = celery.Celery("noop", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("PEER_PREFETCH", "4")),
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop() -> None:
    """What is queued."""
    stamp()


if __name__ == "__main__":
    with app.producer_pool.acquire() as producer:
        for _ in range(int(sys.argv[1])):
            noop.apply_async(producer=producer)
