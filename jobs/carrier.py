"""The carrier: arq's loops kept alive, one a queue, and the way into them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import UTC
from typing import Any

from arq.connections import ArqRedis, create_pool
from arq.cron import cron
from arq.worker import Worker as ArqWorker
from arq.worker import func

from jobs.perform import FUNCTION, message_id, perform, to_message
from jobs.queue import QUEUE_NAME, deserialize, redis_settings, serialize
from jobs.reap import reap
from jobs.send_emails import send_emails
from jobs.send_reminders import send_reminders
from jobs.work import Work
from scheduler.logs import get_logger
from scheduler.redis_client import REDIS_AWAY, redis_client
from scheduler.runs.dispatch import Dispatched
from scheduler.runs.wake import CHANNEL
from scheduler.settings import Settings

TICKS_POLL_S = 0.05
RUNS_POLL_S = 0.02
"""arq looks into Redis so often; its default of 0.5 s would be the greater part of a run's lateness."""
MOST_JOBS = 50
JOB_TIMEOUT_S = 600
RECONNECT_S = 0.5
PATIENCE_S = 1.0
"""How long a message may take on its way into Redis, before its runs are begun without it."""

log = get_logger("worker")


class Carrier:
    """Carries runs through Redis to whichever worker is first, and arq's ticks to this one."""

    def __init__(self, settings: Settings, work: Work) -> None:
        self._url = settings.redis_url
        self._queues = settings.worker_queues
        self._work = work
        self._pools: dict[str, ArqRedis] = {}

    def loops(self, *, woken: Callable[[], None]) -> Iterator[Coroutine[Any, Any, None]]:
        """What is to be kept running; `woken` is called whenever somebody says that there is something to dispatch."""
        if self._url is None:
            log.warning("worker.without_redis", hint="set PUNCTUAL_REDIS_URL, or use `punctual up`")
            return
        yield self._keep_running(self._url, QUEUE_NAME, self._ticks)
        for queue in self._queues:
            yield self._keep_running(self._url, queue_name(queue), self._runs)
        yield self._listen(self._url, woken)

    async def carry(self, queue: str, dispatched: list[Dispatched]) -> bool:
        """Send word of these runs; returns whether Redis took it. If it did and seems not to have, nothing is done
        twice: whoever begins a run first has it."""
        pool = self._pools.get(queue_name(queue))
        if pool is None:
            return False
        try:
            async with asyncio.timeout(PATIENCE_S):
                await pool.enqueue_job(FUNCTION, to_message(dispatched), _job_id=message_id(dispatched))
        except REDIS_AWAY as error:
            log.warning("dispatch.not_carried", runs=len(dispatched), error=f"{type(error).__name__}: {error}"[:200])
            return False
        return True

    async def _keep_running(self, url: str, name: str, make: Callable[[ArqRedis], ArqWorker]) -> None:
        """Run arq's worker, anew each time that it falls: it ends itself when Redis restarts."""
        connected_before = True
        while True:
            arq = None
            try:
                pool = await create_pool(
                    redis_settings(url),
                    job_serializer=serialize,
                    job_deserializer=deserialize,
                    default_queue_name=name,
                )
                arq = make(pool)
                self._pools[name] = pool
                log.info("worker.queue_connected", worker=self._work.name, queue=name)
                connected_before = True
                await arq.async_run()
            except REDIS_AWAY as error:
                if connected_before:
                    log.warning("worker.queue_away", queue=name, error=f"{type(error).__name__}: {error}")
                connected_before = False
            except Exception:  # a fault of arq's own must not end the worker either
                log.exception("worker.queue_failed", queue=name)
            finally:
                self._pools.pop(name, None)
                if arq is not None:
                    with suppress(Exception, asyncio.CancelledError):
                        async with asyncio.timeout(1):
                            await arq.close()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, url: str, woken: Callable[[], None]) -> None:
        """Hear who says that there is something to dispatch."""
        while True:
            client = redis_client(url, timeout_s=PATIENCE_S)
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    while True:
                        if await channel.get_message(ignore_subscribe_messages=True, timeout=30) is not None:
                            woken()
            except REDIS_AWAY:
                pass  # what was not heard is found at the next tick
            finally:
                with suppress(Exception):
                    await client.aclose()
            await asyncio.sleep(RECONNECT_S)

    def _ticks(self, pool: ArqRedis) -> ArqWorker:
        # unique=False: each worker ticks each second, and they share what is due by SKIP LOCKED.
        each_second: dict[str, Any] = {
            "second": set(range(60)),
            "microsecond": 0,
            "unique": False,
            "max_tries": 1,
            "keep_result": 0,
            "timeout": JOB_TIMEOUT_S,
        }
        return self._arq_worker(
            pool,
            QUEUE_NAME,
            poll_delay=TICKS_POLL_S,
            cron_jobs=[
                cron(send_reminders, name="send_reminders", **each_second),  # type: ignore[arg-type]
                cron(send_emails, name="send_emails", **each_second),  # type: ignore[arg-type]
                cron(reap, name="reap", **each_second),  # type: ignore[arg-type]
            ],
        )

    def _runs(self, pool: ArqRedis) -> ArqWorker:
        carried = func(perform, name=FUNCTION, max_tries=1, keep_result=0, timeout=JOB_TIMEOUT_S)  # type: ignore[arg-type]
        return self._arq_worker(pool, pool.default_queue_name, poll_delay=RUNS_POLL_S, functions=[carried])

    def _arq_worker(self, pool: ArqRedis, name: str, **options: Any) -> ArqWorker:
        return ArqWorker(
            redis_pool=pool,
            queue_name=name,
            ctx={"work": self._work},
            job_serializer=serialize,
            job_deserializer=deserialize,
            handle_signals=False,
            max_jobs=MOST_JOBS,
            job_timeout=JOB_TIMEOUT_S,
            max_tries=1,
            keep_result=0,
            health_check_key=f"punctual:health:{self._work.name}:{name}",
            timezone=UTC,  # arq's cron misbehaves across clock changes in any other
            **options,
        )


def queue_name(queue: str) -> str:
    """The name in Redis of one of our queues."""
    return f"{QUEUE_NAME}:{queue}"
