"""What is true of one process of the web: its requests, its pool of connections, its event loop, its memory.

Several processes share a port, and each scrape is answered by one of them. So each of these series carries the `pid`
of its process: sum over it, or take the greatest.
"""

from __future__ import annotations

import os

from prometheus_client import ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.pool import QueuePool

from scheduler.database import Database
from scheduler.logs import records
from scheduler.metrics.counters import Counters, families
from scheduler.metrics.definitions import REQUEST_DURATION, REQUESTS
from scheduler.metrics.loop_lag import LoopLag

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ProcessMetrics:
    """Of this process. Requests are counted by `began` and `ended`; the rest is looked at when it is asked for."""

    def __init__(self, database: Database) -> None:
        self.lag = LoopLag()
        self._database = database
        self._pid = str(os.getpid())
        self._requests = Counters()
        self._under_way = 0
        self._system = ProcessCollector(registry=None)

    def began(self) -> None:
        """A request came in."""
        self._under_way += 1

    def ended(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """It was answered. `route`: its template, or one word for whatever is none of ours."""
        self._under_way -= 1
        method = method if method in _METHODS else "other"
        self._requests.inc(REQUESTS, (method, route, str(status), self._pid))
        self._requests.observe(REQUEST_DURATION, (method, route, self._pid), seconds)

    def families(self) -> list[Metric]:
        """All of it, as prometheus_client takes it."""
        pool = self._database.engine.pool
        in_use, size = (pool.checkedout(), pool.size()) if isinstance(pool, QueuePool) else (0, 0)
        return [
            *families((REQUESTS, REQUEST_DURATION), self._requests.series()),
            self._gauge("punctual_http_requests_under_way", "Requests that are being answered.", self._under_way),
            self._gauge("punctual_database_pool_connections_in_use", "Connections to the database in use.", in_use),
            self._gauge("punctual_database_pool_size", "Connections to the database that there may be.", size),
            self._gauge(
                "punctual_event_loop_lag_seconds",
                "The longest that the event loop was held up within the last half minute.",
                self.lag.greatest_s,
            ),
            self._gauge("punctual_log_records_held", "Log records that wait to be stored.", len(records)),
            *self._of_system(),
        ]

    def _gauge(self, name: str, help_: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, help_, labels=["pid"])
        family.add_metric([self._pid], value)
        return family

    def _of_system(self) -> list[Metric]:
        """Memory, processor time, open files: the standard `process_…` series."""
        found = list(self._system.collect())
        for family in found:
            family.samples = [sample._replace(labels={**sample.labels, "pid": self._pid}) for sample in family.samples]
        return found
