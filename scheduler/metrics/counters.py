"""Counting: in memory as things happen, and every few seconds into the database, where all processes add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from sqlalchemy import select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from models import Metric as MetricRow
from scheduler.database import Database
from scheduler.logs import records
from scheduler.metrics.definitions import LOG_RECORDS_DROPPED, Counter, Histogram
from scheduler.storing import keep_storing

STORE_EVERY_S = 5.0
AT_ONCE = 200  # series of one statement
MOST_SERIES = 20_000
"""Read for one answer: what is stored has few labels of few values each, so there are some hundreds."""
INFINITY = "+Inf"

Labels = tuple[str, ...]
"""The values of a definition's labels, in their order."""


class Series(NamedTuple):
    """One number of a histogram or a counter, as it is stored."""

    name: str
    labels: str
    """JSON, keys in order. A histogram's buckets have `le` among them, and each holds only what is above the bucket
    before it: so that a measurement changes one of them, and not all that are above it."""
    value: float


class _Measured:
    __slots__ = ("buckets", "sum")

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * (buckets + 1)
        self.sum = 0.0


class Counters:
    """Counts and measurements since they were last stored."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Counter, Labels], float] = {}
        self._measured: dict[tuple[Histogram, Labels], _Measured] = {}

    def inc(self, counter: Counter, labels: Labels = (), value: float = 1) -> None:
        """Count `value` more."""
        key = (counter, labels)
        self._counts[key] = self._counts.get(key, 0) + value

    def observe(self, histogram: Histogram, labels: Labels, seconds: float) -> None:
        """Count a measurement."""
        key = (histogram, labels)
        measured = self._measured.get(key)
        if measured is None:
            measured = self._measured[key] = _Measured(len(histogram.buckets))
        measured.buckets[bisect_left(histogram.buckets, seconds)] += 1
        measured.sum += seconds

    def series(self) -> list[Series]:
        """All of it, in the order of its keys."""
        return sorted(self._series())

    async def flush(self, database: Database) -> int:
        """Add what was counted since the last time to what is stored. Returns how many series that changed.

        Raises what the database raises, and then keeps it. Where it landed all the same, it will count twice: these
        are numbers to watch the service by; what is exact is in the ledger of runs.
        """
        counts, self._counts = self._counts, {}
        measured, self._measured = self._measured, {}
        taken = Counters()
        taken._counts, taken._measured = counts, measured
        rows = taken.series()
        if not rows:
            return 0
        try:
            await database.retry_write(lambda session: _add(session, rows, is_mysql=database.is_mysql))
        except BaseException:
            self._put_back(taken)
            raise
        return len(rows)

    def _series(self) -> Iterator[Series]:
        for (counter, values), count in self._counts.items():
            yield Series(counter.name, _json(zip(counter.labels, values, strict=True)), count)
        for (histogram, values), measured in self._measured.items():
            labels = list(zip(histogram.labels, values, strict=True))
            bounds = [*map(_bound, histogram.buckets), INFINITY]
            for bound, count in zip(bounds, measured.buckets, strict=True):
                if count:
                    yield Series(histogram.name, _json([*labels, ("le", bound)]), count)
            yield Series(histogram.name + "_sum", _json(labels), measured.sum)

    def _put_back(self, taken: Counters) -> None:
        for (counter, labels), count in taken._counts.items():
            self.inc(counter, labels, count)
        for key, measured in taken._measured.items():
            since = self._measured.setdefault(key, measured)
            if since is not measured:
                since.buckets = [one + other for one, other in zip(since.buckets, measured.buckets, strict=True)]
                since.sum += measured.sum


async def _add(session: AsyncSession, rows: Sequence[Series], *, is_mysql: bool) -> None:
    # In the order of their keys: two processes that add at the same time must not wait for each other.
    table = MetricRow.__table__
    for start in range(0, len(rows), AT_ONCE):
        values = [row._asdict() for row in rows[start : start + AT_ONCE]]
        if is_mysql:
            into_mysql = mysql.insert(table).values(values)
            more = table.c.value + into_mysql.inserted.value
            await session.execute(into_mysql.on_duplicate_key_update(value=more))
        else:
            into_sqlite = sqlite.insert(table).values(values)
            more = table.c.value + into_sqlite.excluded.value
            await session.execute(
                into_sqlite.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": more})
            )


async def read_series(session: AsyncSession) -> list[Series]:
    """What all processes have stored."""
    table = MetricRow.__table__
    query = select(table.c.name, table.c.labels, table.c.value).limit(MOST_SERIES)
    return [Series(*row) for row in await session.execute(query)]


def families(
    definitions: Iterable[Counter | Histogram], series: Iterable[Series], *, more: Mapping[str, str] | None = None
) -> list[Metric]:
    """Stored numbers as prometheus_client takes them; what no definition knows is left out. `more`: labels of all."""
    named: dict[str, list[tuple[dict[str, str], float]]] = {}
    for each in series:
        named.setdefault(each.name, []).append(({**orjson.loads(each.labels), **(more or {})}, each.value))
    return [
        _counter(definition, named.get(definition.name, []))
        if isinstance(definition, Counter)
        else _histogram(definition, named.get(definition.name, []), named.get(f"{definition.name}_sum", []))
        for definition in definitions
    ]


def _counter(counter: Counter, series: Sequence[tuple[dict[str, str], float]]) -> Metric:
    family = CounterMetricFamily(counter.name, counter.help, labels=counter.labels)
    for labels, value in series:
        family.add_metric([labels.get(name, "") for name in counter.labels], value)
    return family


def _histogram(
    histogram: Histogram,
    buckets: Sequence[tuple[dict[str, str], float]],
    sums: Sequence[tuple[dict[str, str], float]],
) -> Metric:
    family = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
    counted: dict[Labels, dict[str, float]] = {}
    for labels, value in buckets:
        of_labels = counted.setdefault(tuple(labels.get(name, "") for name in histogram.labels), {})
        of_labels[labels.get("le", INFINITY)] = value
    summed = {tuple(labels.get(name, "") for name in histogram.labels): value for labels, value in sums}
    for key, of_labels in counted.items():
        # Buckets of an earlier version, with other bounds, count on in theirs.
        bounds = sorted({*map(_bound, histogram.buckets), INFINITY, *of_labels}, key=float)
        so_far = 0.0
        cumulative = []
        for bound in bounds:
            so_far += of_labels.get(bound, 0)
            cumulative.append((bound, so_far))
        family.add_metric(key, cumulative, summed.get(key, 0.0))
    return family


def _bound(seconds: float) -> str:
    return str(float(seconds))


def _json(labels: Iterable[tuple[str, Any]]) -> str:
    return orjson.dumps({name: str(value) for name, value in labels}, option=orjson.OPT_SORT_KEYS).decode()


async def store_metrics(database: Database) -> None:
    """Store what this process counts until cancelled, and then what is left. A process runs one of these beside its
    work."""
    told = dict.fromkeys(records.dropped, 0)

    async def store() -> None:
        for reason, count in records.dropped.items():
            if count > told[reason]:
                counters.inc(LOG_RECORDS_DROPPED, (reason,), count - told[reason])
                told[reason] = count
        await counters.flush(database)

    await keep_storing(store, every_s=STORE_EVERY_S)


counters = Counters()
"""The process's: counting is process-wide, and so is this."""
