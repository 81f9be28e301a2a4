"""Counting in memory, and what Prometheus reads of it."""

from __future__ import annotations

import asyncio
import timeit
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as TheirCounter
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from models.run import RunState
from scheduler.metrics.counters import Counters, Series, families
from scheduler.metrics.definitions import LOST_ATTEMPTS, RETRIES, RUN_DURATION, RUN_LATENESS, RUNS, STORED, Histogram
from scheduler.metrics.loop_lag import LoopLag
from scheduler.metrics.runs import RunMetrics


class Found(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self.found = list(found)

    def collect(self) -> Iterable[Metric]:
        return self.found


def read(counters: Counters) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, as whoever scrapes reads it."""
    text = generate_latest(Found(families(STORED, counters.series()))).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_ends_of_runs() -> None:
    counters = Counters()
    metrics = RunMetrics(counters)
    metrics.ended(job="reap", state=RunState.SUCCEEDED, duration_s=0.03, lateness_s=0.2)
    metrics.ended(job="reap", state="succeeded", duration_s=0.05, lateness_s=-1)
    metrics.ended(job="reap", state=RunState.SKIPPED, duration_s=None)
    metrics.ended(job="cleanup", state=RunState.FAILED, duration_s=4000, lateness_s=None)
    metrics.retried(job="cleanup")
    metrics.lost(job="cleanup", count=3)
    samples = read(counters)
    assert samples["punctual_runs_total", (("job", "reap"), ("state", "succeeded"))] == 2
    assert samples["punctual_runs_total", (("job", "reap"), ("state", "skipped"))] == 1
    assert samples["punctual_runs_total", (("job", "cleanup"), ("state", "failed"))] == 1
    assert samples["punctual_run_retries_total", (("job", "cleanup"),)] == 1
    assert samples["punctual_run_attempts_lost_total", (("job", "cleanup"),)] == 3
    buckets = "punctual_run_duration_seconds_bucket"
    duration = {bound: samples[buckets, (("job", "reap"), ("le", bound))] for bound in ("0.025", "0.05", "+Inf")}
    assert (duration["0.025"], duration["0.05"], duration["+Inf"]) == (0, 2, 2)
    assert samples["punctual_run_duration_seconds_count", (("job", "reap"),)] == 2
    assert samples["punctual_run_duration_seconds_sum", (("job", "reap"),)] == pytest.approx(0.08)
    assert samples["punctual_run_duration_seconds_bucket", (("job", "cleanup"), ("le", "3600.0"))] == 0
    assert samples["punctual_run_duration_seconds_bucket", (("job", "cleanup"), ("le", "+Inf"))] == 1
    assert samples["punctual_run_lateness_seconds_sum", (("job", "reap"),)] == pytest.approx(0.2)


@given(st.lists(st.tuples(st.sampled_from(["a", 'b"\\\n', "é"]), st.floats(0, 10**6))))
def test_the_same_numbers_as_prometheus_client_itself(measured: list[tuple[str, float]]) -> None:
    registry = CollectorRegistry()
    theirs = TheirHistogram(
        "punctual_run_duration_seconds", "x", ["job"], buckets=RUN_DURATION.buckets, registry=registry
    )
    theirs_counted = TheirCounter("punctual_run_retries", "x", ["job"], registry=registry)
    counters = Counters()
    for job, seconds in measured:
        theirs.labels(job).observe(seconds)
        theirs_counted.labels(job).inc()
        counters.observe(RUN_DURATION, (job,), seconds)
        counters.inc(RETRIES, (job,))
    expected = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    found = read(counters)
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(value) for key, value in expected.items())


def test_buckets_of_another_version_still_count() -> None:
    other = Histogram(RUN_LATENESS.name, "x", ("job",), (0.07, 100.0))
    counters = Counters()
    counters.observe(RUN_LATENESS, ("a",), 0.06)
    (family,) = families([other], counters.series())
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert buckets == {"0.07": 0, "0.1": 1, "100.0": 1, "+Inf": 1}


def test_what_no_definition_knows_is_left_out() -> None:
    assert [family.samples for family in families([RUNS], [Series("of_a_later_version", '{"a":"b"}', 5)])] == [[]]
    (family,) = families([RUNS], [Series(RUNS.name, '{"job":"a","color":"red"}', 5)])
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"job": "a", "state": ""}, 5)]


def test_series_fit_their_columns_and_come_in_the_order_of_their_keys() -> None:
    counters = Counters()
    longest = "j" * 64
    for definition in STORED:
        labels = tuple(longest for _ in definition.labels)
        if isinstance(definition, Histogram):
            counters.observe(definition, labels, 10**9)
        else:
            counters.inc(definition, labels)
    series = counters.series()
    assert series == sorted(series)
    assert all(len(each.name) <= 64 and len(each.labels) <= 200 for each in series)


def test_counting_costs_next_to_nothing() -> None:
    """A microsecond or two on an idle machine; the bound leaves room for a busy one."""
    metrics = RunMetrics(Counters())

    def end() -> None:
        metrics.ended(job="run_schedule", state=RunState.SUCCEEDED, duration_s=0.012, lateness_s=0.03)

    assert min(timeit.repeat(end, number=2000, repeat=5)) / 2000 < 20e-6
    assert LOST_ATTEMPTS in STORED


async def test_a_loop_that_is_held_up() -> None:
    import time

    stalls: list[float] = []
    lag = LoopLag(on_stall=stalls.append)
    assert lag.greatest_s == 0
    watching = asyncio.create_task(lag.watch())
    await asyncio.sleep(0.1)
    time.sleep(0.6)  # noqa: ASYNC251
    await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert 0.3 < lag.greatest_s < 5 and stalls == [lag.greatest_s]
