"""The worker: arq's loop kept alive, and the ticks that go on when Redis does not."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import suppress
from datetime import UTC

from arq.connections import create_pool
from arq.cron import cron
from arq.worker import Worker as ArqWorker
from redis.exceptions import RedisError

from jobs.queue import QUEUE_NAME, deserialize, redis_settings, serialize
from jobs.reap import reap
from jobs.send_emails import send_emails
from jobs.send_reminders import send_reminders
from jobs.work import REAP_EVERY_S, Work
from scheduler.database import Database
from scheduler.logs import get_logger, records
from scheduler.mail.transport import open_transport
from scheduler.settings import Settings

POLL_S = 0.05  # arq's default of 0.5 s would be the greater part of a reminder's lateness
MOST_JOBS = 50
JOB_TIMEOUT_S = 600
RECONNECT_S = 0.5
FLUSH_LOGS_EVERY_S = 0.5
CLEAN_UP_S = 2.0

log = get_logger("worker")


async def run(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Work until SIGTERM, SIGINT or `stop`; then take nothing new, finish or hand back what is held, and
    return.

    Returns within `settings.grace_seconds`, whatever is still under way.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    database = Database(settings.database_url, pool_size=8)
    transport = open_transport(settings.mail_url, data_dir=settings.data_dir)
    work = Work(settings, database, transport)
    _calm_garbage_collector()
    log.info("worker.started", worker=work.name, mail=transport.description)
    helpers = [
        asyncio.create_task(_keep_arq_running(settings, work), name="arq"),
        asyncio.create_task(_tick_when_nobody_does(work), name="ticks"),
        asyncio.create_task(_store_logs(database), name="logs"),
    ]
    try:
        await stop.wait()
        log.info("worker.stopping", worker=work.name)
        work.stop()
        for helper in helpers[:2]:
            helper.cancel()
        try:
            async with asyncio.timeout(max(0.1, settings.grace_seconds - CLEAN_UP_S)):
                await work.finished()
        except TimeoutError:
            log.warning("worker.grace_over", worker=work.name)
    finally:
        with suppress(Exception):
            async with asyncio.timeout(CLEAN_UP_S):
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                await records.flush(database)
                await transport.close()
                await database.dispose()
        log.info("worker.stopped", worker=work.name)


def _calm_garbage_collector() -> None:
    """Look at the objects of the start no more, and at those of a batch less often.

    A claim makes tens of thousands of rows and parameters that live for some milliseconds; by default the collector
    walks all of the process's objects again and again because of them (a tenth of the time of a busy worker).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _keep_arq_running(settings: Settings, work: Work) -> None:
    """Run arq's worker, anew each time that it falls: it ends itself when Redis restarts."""
    if settings.redis_url is None:
        log.warning("worker.without_redis", hint="set PUNCTUAL_REDIS_URL, or use `punctual up`")
        return
    connected_before = True
    while True:
        arq = None
        try:
            pool = await create_pool(
                redis_settings(settings.redis_url),
                job_serializer=serialize,
                job_deserializer=deserialize,
                default_queue_name=QUEUE_NAME,
            )
            arq = _arq_worker(pool, work)
            log.info("worker.queue_connected", worker=work.name)
            connected_before = True
            await arq.async_run()
        except (RedisError, OSError, TimeoutError) as error:
            if connected_before:
                log.warning("worker.queue_away", worker=work.name, error=f"{type(error).__name__}: {error}")
            connected_before = False
        except Exception:  # a fault of arq's own must not end the worker either
            log.exception("worker.queue_failed", worker=work.name)
        finally:
            if arq is not None:
                with suppress(Exception, asyncio.CancelledError):
                    async with asyncio.timeout(1):
                        await arq.close()
        await asyncio.sleep(RECONNECT_S)


def _arq_worker(pool, work: Work) -> ArqWorker:  # type: ignore[no-untyped-def]
    every_second = set(range(60))
    # unique=False: each worker ticks each second, and they share what is due by SKIP LOCKED.
    ticking = {"microsecond": 0, "unique": False, "max_tries": 1, "keep_result": 0, "timeout": JOB_TIMEOUT_S}
    return ArqWorker(
        redis_pool=pool,
        queue_name=QUEUE_NAME,
        functions=[],
        cron_jobs=[
            cron(send_reminders, name="send_reminders", second=every_second, **ticking),  # type: ignore[arg-type]
            cron(send_emails, name="send_emails", second=every_second, **ticking),  # type: ignore[arg-type]
            cron(reap, name="reap", second=set(range(0, 60, REAP_EVERY_S)), **ticking),  # type: ignore[arg-type]
        ],
        ctx={"work": work},
        job_serializer=serialize,
        job_deserializer=deserialize,
        handle_signals=False,
        poll_delay=POLL_S,
        max_jobs=MOST_JOBS,
        job_timeout=JOB_TIMEOUT_S,
        max_tries=1,
        keep_result=0,
        health_check_key=f"punctual:health:{work.name}",
        timezone=UTC,  # arq's cron misbehaves across clock changes in any other
    )


async def _tick_when_nobody_does(work: Work) -> None:
    """Call each tick that arq has not called in time: reminders go out while Redis is away, or hangs."""
    while True:
        await asyncio.sleep(0.1)
        for tick in work.ticks:
            if tick.is_overdue():
                asyncio.create_task(tick())  # noqa: RUF006 (the tick holds its own task)


async def _store_logs(database: Database) -> None:
    """Store the records of runs; while the database is away they wait."""
    while True:
        await asyncio.sleep(FLUSH_LOGS_EVERY_S)
        with suppress(Exception):
            await records.flush(database)
