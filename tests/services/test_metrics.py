"""What a scrape says: what workers counted, what the database holds, and how this process is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert, select
from sqlalchemy.exc import OperationalError

from models import Email, LogRecord, Run, Worker
from models import Metric as MetricRow
from models.run import UNFINISHED, RunState, RunTrigger
from scheduler.clock import now as present
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.logs import get_logger, records
from scheduler.metrics import counters as counters_module
from scheduler.metrics import service
from scheduler.metrics.counters import AT_ONCE, Counters, read_series, store_metrics
from scheduler.metrics.definitions import RETRIES, RUN_DURATION, RUNS
from scheduler.metrics.exposition import CONTENT_TYPE, PATIENCE_S, render
from scheduler.metrics.process import ProcessMetrics
from scheduler.metrics.runs import RunMetrics, count_email
from tests.conftest import Stack
from tests.factories import NOW, People, add_reminder, add_task
from tests.rules.process_logging import process_logging
from tests.services.stored import rows, statements

SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _no_counts_of_others() -> Iterator[None]:
    """The process's counters as if they were new; then as they were."""
    counted = counters_module.counters
    before = dict(vars(counted))
    vars(counted).update(vars(Counters()))
    yield
    vars(counted).update(before)


class Answer(dict[str, dict[tuple[str, ...], float]]):
    """Samples by name, then by the values of their labels in the order of the labels' names."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                of_name = self.setdefault(sample.name, {})
                assert labels not in of_name, f"{sample.name} {labels} is there twice"
                of_name[labels] = sample.value

    def __call__(self, name: str, *labels: str) -> float:
        return self[name][labels]


async def scrape(database: Database, *, now: datetime = NOW, process: ProcessMetrics | None = None) -> Answer:
    return Answer(await render(database, process=process or ProcessMetrics(database), now=now))


def run(**fields: Any) -> dict[str, Any]:
    return {
        "id": new_id(),
        "job": "run_schedule",
        "trigger": RunTrigger.CRON.value,
        "state": RunState.QUEUED.value,
        "queue": "default",
        "priority": 1,
        "owner_id": None,
        "attempt": 0,
        "max_attempts": 1,
        "seq": 0,
        "queued_at": NOW,
        "progress_done": 0,
        "progress_total": 0,
    } | fields


async def add(database: Database, model: Any, *values: dict[str, Any]) -> None:
    async with database.write() as session:
        for start in range(0, len(values), 500):
            await session.execute(insert(model.__table__), list(values[start : start + 500]))


# -- what is counted -----------------------------------------------------------------------------------------


async def test_what_workers_counted_is_added_up(database: Database) -> None:
    one, other = Counters(), Counters()
    for counters in (one, other):
        metrics = RunMetrics(counters)
        metrics.ended(job="cleanup", state=RunState.SUCCEEDED, duration_s=0.3, lateness_s=0.02)
        metrics.ended(job="cleanup", state=RunState.LOST, duration_s=30)
        metrics.retried(job="cleanup")
        metrics.lost(job="cleanup", count=2)
    for _ in range(2):
        await one.flush(database)
        await other.flush(database)
    RunMetrics(other).ended(job="cleanup", state=RunState.SUCCEEDED, duration_s=0.3)
    await RunMetrics(other).flush(database)
    answer = await scrape(database)
    assert answer("punctual_runs_total", "cleanup", "succeeded") == 3
    assert answer("punctual_runs_total", "cleanup", "lost") == 2
    assert answer("punctual_run_retries_total", "cleanup") == 2
    assert answer("punctual_run_attempts_lost_total", "cleanup") == 4
    assert answer("punctual_run_duration_seconds_bucket", "cleanup", "0.25") == 0
    assert answer("punctual_run_duration_seconds_bucket", "cleanup", "0.5") == 3
    assert answer("punctual_run_duration_seconds_bucket", "cleanup", "30.0") == 5
    assert answer("punctual_run_duration_seconds_count", "cleanup") == 5
    assert answer("punctual_run_duration_seconds_sum", "cleanup") == pytest.approx(60.9)
    assert answer("punctual_run_lateness_seconds_count", "cleanup") == 2


@pytest.mark.heavy(on="mariadb")
async def test_many_processes_at_the_same_time(stack: Stack) -> None:
    databases = [Database(stack.database_url) for _ in range(4)]
    series = AT_ONCE + 50

    async def work(database: Database) -> None:
        counters = Counters()
        for round_ in range(5):
            for place in range(series):
                # In another order each time; what is written goes by the keys.
                counters.inc(RETRIES, (f"job {(place * 7 + round_) % series}",))
            await counters.flush(database)

    await asyncio.gather(*map(work, databases))
    async with databases[0].read() as session:
        found = await read_series(session)
    assert len(found) == series and {each.value for each in found} == {20}
    for database in databases:
        await database.dispose()


class Failing(Database):
    """A database whose next commits fail, and do not land."""

    failures = 0

    @asynccontextmanager
    async def write(self) -> Any:
        async with super().write() as session:
            yield session
            if self.failures:
                self.failures -= 1
                raise OperationalError("COMMIT", {}, Exception(2013, "Lost connection to MySQL server"))


async def test_what_could_not_be_stored_is_kept(stack: Stack) -> None:
    database = Failing(stack.database_url)
    database.failures = 2
    counters = Counters()
    counters.inc(RUNS, ("cleanup", "failed"))
    counters.observe(RUN_DURATION, ("cleanup",), 0.2)
    for _ in range(2):
        with pytest.raises(OperationalError):
            await counters.flush(database)
        counters.inc(RUNS, ("cleanup", "failed"))
        counters.observe(RUN_DURATION, ("cleanup",), 0.3)
    assert await counters.flush(database) > 0
    assert await counters.flush(database) == 0
    answer = await scrape(database)
    assert answer("punctual_runs_total", "cleanup", "failed") == 3
    assert answer("punctual_run_duration_seconds_count", "cleanup") == 3
    assert answer("punctual_run_duration_seconds_sum", "cleanup") == pytest.approx(0.8)
    await database.dispose()


async def test_a_flush_is_one_statement(database: Database) -> None:
    counters = Counters()
    for place in range(50):
        RunMetrics(counters).ended(job=f"job {place % 5}", state="succeeded", duration_s=place, lateness_s=place)
    with statements(database) as seen:
        await counters.flush(database)
        await counters.flush(database)
    assert len([each for each in seen if each.startswith("INSERT")]) == 1


async def test_the_loop_stores_what_is_counted_and_the_rest_at_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_module, "STORE_EVERY_S", 0.05)
    with process_logging():
        records.dropped["repeated"] = 5  # before it began
        task = asyncio.create_task(store_metrics(database))
        await asyncio.sleep(0)
        count_email("sent", 3)
        for _ in range(100):
            get_logger("test").warning("a.storm")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not await rows(database, MetricRow):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        answer = await scrape(database)
        assert answer("punctual_email_attempts_total", "sent") == 3
        assert answer("punctual_log_records_dropped_total", "repeated") == 45
        count_email("dead")
        for _ in range(10):
            get_logger("test").warning("a.storm")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    answer = await scrape(database)
    assert answer("punctual_email_attempts_total", "dead") == 1
    assert answer("punctual_log_records_dropped_total", "repeated") == 55


# -- what the database holds ---------------------------------------------------------------------------------


async def test_an_empty_service(database: Database) -> None:
    answer = await scrape(database)
    assert answer("punctual_up") == 1
    for queue in ("default", "schedules"):
        assert answer("punctual_queue_oldest_seconds", queue) == 0
        assert answer("punctual_runs_running", queue) == 0
        assert answer("punctual_queue_depth", queue, "queued") == 0
    assert answer("punctual_workers") == answer("punctual_worker_slots") == 0
    assert answer("punctual_emails", "pending") == answer("punctual_email_due_seconds") == 0
    assert answer("punctual_reminders_pending") == answer("punctual_reminders_late") == 0


async def test_queues(database: Database) -> None:
    each = [
        run(state=state.value, queued_at=NOW - 10 * SECOND, queue=queue)
        for state in UNFINISHED
        for queue in ("default", "odd")
    ]
    done = [run(state=RunState.SUCCEEDED.value, queued_at=NOW - 9000 * SECOND) for _ in range(5)]
    later = [run(state=RunState.WAITING.value, queued_at=NOW - 8000 * SECOND)]
    oldest = [run(queued_at=NOW - 70 * SECOND), run(queued_at=NOW - 90 * SECOND, state=RunState.DISPATCHED.value)]
    await add(database, Run, *each, *done, *later, *oldest)
    answer = await scrape(database)
    assert answer("punctual_queue_depth", "default", "queued") == 2
    assert answer("punctual_queue_depth", "default", "dispatched") == 2
    assert answer("punctual_queue_depth", "default", "waiting") == 2
    assert answer("punctual_queue_depth", "odd", "blocked") == 1
    assert ("default", "running") not in answer["punctual_queue_depth"]
    assert answer("punctual_runs_running", "default") == answer("punctual_runs_running", "odd") == 1
    # What waits for a later moment is not old, and what has ended is in no queue.
    assert answer("punctual_queue_oldest_seconds", "default") == 90
    assert answer("punctual_queue_oldest_seconds", "odd") == 10
    assert answer("punctual_queue_oldest_seconds", "schedules") == 0


async def test_a_full_queue_does_not_make_the_others_look_old(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "OLDEST_LOOKED_AT", 5)
    await add(
        database,
        Run,
        *(run(queued_at=NOW - 100 * SECOND) for _ in range(9)),
        run(queued_at=NOW - SECOND, queue="schedules"),
    )
    answer = await scrape(database)
    assert answer("punctual_queue_depth", "schedules", "queued") == 1
    assert answer["punctual_queue_oldest_seconds"] == {("default",): 100}


async def test_workers(database: Database) -> None:
    worker = {"version": "1", "queues": ["default"], "beat": 5, "started_at": NOW - 9000 * SECOND}
    await add(
        database,
        Worker,
        {**worker, "name": "one", "concurrency": 100, "heartbeat_at": NOW - SECOND},
        {**worker, "name": "two", "concurrency": 50, "heartbeat_at": NOW + 2 * SECOND},  # by a clock ahead of ours
        {**worker, "name": "dead", "concurrency": 50, "heartbeat_at": NOW - 31 * SECOND},
    )
    answer = await scrape(database)
    assert (answer("punctual_workers"), answer("punctual_worker_slots")) == (2, 150)


async def test_emails_and_reminders(database: Database, people: People) -> None:
    states = {"pending": 3, "sending": 2, "dead": 4, "sent": 50}
    email = {
        "sender": "a@example.org",
        "recipient": "b@example.org",
        "subject": "s",
        "template": "reminder",
        "message": b"m",
        "attempts": 0,
        "created_at": NOW,
    }
    made = [
        {**email, "id": new_id(), "message_id": str(new_id()), "state": state, "next_attempt_at": NOW - place * SECOND}
        for state, number in states.items()
        for place in range(number)
    ]
    await add(database, Email, *made)
    task_id = await add_task(database, people.alice)
    for seconds in (-3600, -61, -59, 0, 3600):
        await add_reminder(database, task_id, people.alice, NOW + seconds * SECOND)
    answer = await scrape(database)
    assert answer["punctual_emails"] == {("pending",): 3, ("sending",): 2, ("dead",): 4}
    assert answer("punctual_email_due_seconds") == 2
    assert answer("punctual_reminders_pending") == 5
    assert answer("punctual_reminders_late") == 2


async def test_a_scrape_is_a_fixed_number_of_statements(database: Database) -> None:
    numbers = []
    for _ in range(2):
        with statements(database) as seen:
            await scrape(database)
        numbers.append(len([each for each in seen if each.startswith("SELECT")]))
        await add(database, Run, *(run(state=state.value, queue=f"q{n}") for state in RunState for n in range(20)))
        await RunMetrics(Counters()).flush(database)
    assert numbers == [6, 6]


@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_no_statement_reads_history(stack: Stack, database: Database) -> None:
    """Of runs that have ended and e-mails that were sent, no row is looked at."""
    assert stack.mariadb is not None
    done = [run(state=RunState.SUCCEEDED.value) for _ in range(3000)]
    await add(database, Run, *done)
    async with database.write() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("ANALYZE TABLE run, email, reminder")
    before = stack.mariadb.status("Handler_read_next") + stack.mariadb.status("Handler_read_rnd_next")
    await scrape(database)
    after = stack.mariadb.status("Handler_read_next") + stack.mariadb.status("Handler_read_rnd_next")
    assert after - before < 1000
    async with database.read() as session:
        assert (await session.execute(select(func.count()).select_from(Run))).scalar_one() == 3000


# -- how this process is -------------------------------------------------------------------------------------


async def test_the_process(database: Database) -> None:
    process = ProcessMetrics(database)
    process.began()
    process.began()
    process.ended(method="GET", route="/api/v1/tasks/{task_id}", status=200, seconds=0.02)
    process.began()
    process.ended(method="BREW", route="unknown", status=404, seconds=0.001)
    async with database.read() as session:
        await session.execute(select(func.count()).select_from(LogRecord))
        answer = await scrape(database, process=process, now=present())
    (pid,) = {labels[0] for labels in answer["punctual_event_loop_lag_seconds"]}
    assert answer("punctual_http_requests_total", "GET", pid, "/api/v1/tasks/{task_id}", "200") == 1
    assert answer("punctual_http_requests_total", "other", pid, "unknown", "404") == 1
    assert answer("punctual_http_request_duration_seconds_count", "GET", pid, "/api/v1/tasks/{task_id}") == 1
    assert answer("punctual_http_request_duration_seconds_bucket", "0.01", "GET", pid, "/api/v1/tasks/{task_id}") == 0
    assert answer("punctual_http_request_duration_seconds_bucket", "0.025", "GET", pid, "/api/v1/tasks/{task_id}") == 1
    assert answer("punctual_http_requests_under_way", pid) == 1
    assert answer("punctual_database_pool_connections_in_use", pid) == 1
    assert answer("punctual_database_pool_size", pid) == 10
    assert answer("process_resident_memory_bytes", pid) > 10**7
    assert answer("process_cpu_seconds_total", pid) > 0
    assert answer["punctual_build_info"].popitem()[1] == 1


async def test_the_answer_is_text_that_prometheus_reads(database: Database) -> None:
    RunMetrics(counters := Counters()).ended(job="cleanup", state="succeeded", duration_s=1)
    await counters.flush(database)
    text = (await render(database, process=ProcessMetrics(database), now=NOW)).decode()
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    for line in (
        "# TYPE punctual_runs_total counter",
        "# TYPE punctual_run_duration_seconds histogram",
        "# TYPE punctual_queue_depth gauge",
        'punctual_runs_total{job="cleanup",state="succeeded"} 1.0',
    ):
        assert line in text.splitlines()
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram"), family.name


# -- when it does not go well --------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_a_database_that_is_away_leaves_the_process(stack: Stack, database: Database, how: str) -> None:
    assert stack.mariadb is not None
    process = ProcessMetrics(database)
    assert (await scrape(database, process=process))("punctual_up") == 1
    await asyncio.to_thread(getattr(stack.mariadb, how))
    try:
        began = time.monotonic()
        answer = await scrape(database, process=process)
        assert time.monotonic() - began < PATIENCE_S + 1
        assert answer("punctual_up") == 0
        assert "punctual_event_loop_lag_seconds" in answer and "punctual_workers" not in answer
    finally:
        if how == "pause":
            await asyncio.to_thread(stack.mariadb.resume)
        else:
            await asyncio.to_thread(stack.mariadb.ensure_running)
    deadline = time.monotonic() + 15
    while (await scrape(database, process=process))("punctual_up") == 0 and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    assert (await scrape(database, process=process))("punctual_workers") == 0
