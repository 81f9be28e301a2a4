"""The answer to a scrape, in Prometheus's text format."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.database import Database
from scheduler.metrics.process import ProcessMetrics
from scheduler.metrics.service import read_service

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PATIENCE_S = 4.0
"""For the database: less than Prometheus waits for us by default (10 s)."""

_left_behind: set[asyncio.Task[list[Metric]]] = set()


async def render(database: Database, *, process: ProcessMetrics, now: datetime) -> bytes:
    """All metrics of the service and of this process.

    While the database is away or hangs: those of the process alone, and `punctual_up` is 0. Needs no Redis.
    """
    service = await _service(database, now)
    up = GaugeMetricFamily("punctual_up", "Whether the database said how the service is.", value=service is not None)
    about = GaugeMetricFamily("punctual_build_info", "The version that answers.", labels=["version"])
    about.add_metric([_version()], 1)
    return generate_latest(_Families([up, about, *(service or []), *process.families()]))


async def _service(database: Database, now: datetime) -> list[Metric] | None:
    task = asyncio.create_task(_read(database, now))
    done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
    if not done:
        # Left behind: to end a transaction on a database that hangs takes as long as the hang.
        _left_behind.add(task)
        task.add_done_callback(_left_behind.discard)
        task.cancel()
        return None
    try:
        return task.result()
    except Exception:  # whatever it is: this is how operators are told that something is wrong
        return None


async def _read(database: Database, now: datetime) -> list[Metric]:
    async with database.read() as session:
        return await read_service(session, now=now)


class _Families(Collector):
    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


@cache
def _version() -> str:
    try:
        return version("punctual")
    except PackageNotFoundError:  # run from its source
        return "unknown"
