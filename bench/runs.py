"""Runs of a job that does nothing: how many a second, from the row written to the row final, and how soon one starts.

The clock runs from before the first row is inserted until a look (every 20 ms) finds no row unfinished, so that what
is counted is committed. The rows are written by this process, while the worker takes them up: both want a core.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymysql.cursors import Cursor

from bench.measure import BenchError, Rate, quantile, wait_until
from bench.noop_worker import NOOP, declare
from bench.seed import clear
from bench.service import workers
from bench.surroundings import DATABASE, Surroundings
from models.run import UNFINISHED, RunState, RunTrigger
from scheduler.clock import now
from scheduler.database import Database
from scheduler.redis_client import redis_client
from scheduler.runs.enqueue import NewRun, enqueue, enqueue_many
from scheduler.runs.wake import wake_workers

WORKER = (sys.executable, "-m", "bench.noop_worker")
AT_ONCE = 1000
"""Rows of one transaction."""
LONGEST_SECONDS = 60.0
PAUSE_S = (0.05, 0.25)

_UNFINISHED = ", ".join(f"'{state.value}'" for state in UNFINISHED)


@dataclass(frozen=True)
class NoopRate:
    """`rate`: until every row was final. `with_records`: seconds until the record of each end was stored too."""

    rate: Rate
    with_records: float


def throughput(on: Surroundings, *, runs: int, concurrency: int | None) -> NoopRate:
    """Write `runs` queued rows in bulk beside an idle worker, and wait until all are final.

    `concurrency`: None is the service's default. Checks that all succeeded with their history: times, duration, and
    the one record that ends each run. Raises BenchError.
    """
    clear(on)
    on.redis.flushall()
    declare()
    with _worker(on, concurrency), _cursor(on) as cursor:
        questions = on.mariadb.status("Questions")
        began = time.monotonic()
        asyncio.run(_write(on, runs))
        looks = 0

        def is_over() -> bool:
            nonlocal looks
            looks += 1
            cursor.execute(f"SELECT EXISTS (SELECT 1 FROM run WHERE state IN ({_UNFINISHED}))")
            return _row(cursor) == (0,)

        try:
            wait_until(is_over, LONGEST_SECONDS, f"{runs} runs", every=0.02)
            seconds = time.monotonic() - began
            wait_until(lambda: _records(cursor) >= runs, 30, "the records of the runs' ends")
        except BenchError as error:
            cursor.execute("SELECT state, count(*) FROM run GROUP BY state")
            raise BenchError(f"{error}: {dict(cursor.fetchall())}, {_records(cursor)} records") from None
        with_records = time.monotonic() - began
        questions = on.mariadb.status("Questions") - questions - looks
        _check_history(cursor, runs)
    return NoopRate(Rate(runs, seconds, statements=questions), with_records)


@dataclass(frozen=True)
class Latency:
    """Seconds from `queued_at` to `started_at`; one machine stamped both."""

    runs: int
    p50: float
    p99: float
    longest: float


def latency(on: Surroundings, *, runs: int) -> Latency:
    """Single runs, one each 50 to 250 ms, asked for as the API does it: a transaction, then a word to the workers.

    `queued_at` is stamped before the transaction, `started_at` when the worker begins. Raises BenchError.
    """
    clear(on)
    on.redis.flushall()
    declare()
    with _worker(on, None), _cursor(on) as cursor:
        asyncio.run(_ask_now_and_then(on, runs))

        def is_over() -> bool:
            cursor.execute(f"SELECT count(*) FROM run WHERE job = %s AND state NOT IN ({_UNFINISHED})", (NOOP,))
            return _row(cursor) == (runs,)

        wait_until(is_over, 10, f"{runs} runs")
        cursor.execute(
            "SELECT TIMESTAMPDIFF(MICROSECOND, queued_at, started_at) / 1000000 FROM run "
            "WHERE job = %s AND state = 'succeeded'",
            (NOOP,),
        )
        found = [float(seconds) for (seconds,) in cursor.fetchall()]
    if len(found) != runs:
        raise BenchError(f"{len(found)} of {runs} runs succeeded")
    return Latency(runs, quantile(found, 0.5), quantile(found, 0.99), max(found))


@contextmanager
def _worker(on: Surroundings, concurrency: int | None) -> Iterator[None]:
    settings = {} if concurrency is None else {"PUNCTUAL_WORKER_CONCURRENCY": str(concurrency)}
    with workers(on, 1, command=WORKER, settings=settings):
        yield


@contextmanager
def _cursor(on: Surroundings) -> Iterator[Cursor]:
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        yield cursor


async def _write(on: Surroundings, count: int) -> None:
    database = Database(on.database_url)
    redis = redis_client(on.redis.url, timeout_s=5)
    try:
        for start in range(0, count, AT_ONCE):
            new = [NewRun(job=NOOP, trigger=RunTrigger.MANUAL) for _ in range(min(AT_ONCE, count - start))]
            async with database.write() as session:
                await enqueue_many(session, new, now=now())
            await wake_workers(redis)
    finally:
        await redis.aclose()
        await database.dispose()


async def _ask_now_and_then(on: Surroundings, count: int) -> None:
    database = Database(on.database_url)
    redis = redis_client(on.redis.url, timeout_s=5)
    try:
        for _ in range(count):
            await asyncio.sleep(random.uniform(*PAUSE_S))
            async with database.write() as session:
                await enqueue(session, now=now(), job=NOOP, trigger=RunTrigger.MANUAL)
            await wake_workers(redis)
    finally:
        await redis.aclose()
        await database.dispose()


def _check_history(cursor: Cursor, runs: int) -> None:
    cursor.execute(
        "SELECT count(*) FROM run WHERE job = %s AND state = %s AND attempt = 1 AND worker IS NOT NULL "
        "AND queued_at <= started_at AND started_at <= finished_at AND duration_ms IS NOT NULL",
        (NOOP, RunState.SUCCEEDED.value),
    )
    (whole,) = _row(cursor)
    cursor.execute(
        "SELECT count(*), count(DISTINCT run_id) FROM log_record WHERE job = %s AND event = 'run.succeeded'", (NOOP,)
    )
    records, distinct = _row(cursor)
    if not whole == records == distinct == runs:
        raise BenchError(f"of {runs} runs {whole} have their history; {records} records of {distinct} runs' ends")


def _records(cursor: Cursor) -> int:
    cursor.execute("SELECT count(*) FROM log_record WHERE job = %s AND event = 'run.succeeded'", (NOOP,))
    return int(_row(cursor)[0])


def _row(cursor: Cursor) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    return row
