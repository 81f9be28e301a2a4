"""Records on their way into the database: none is lost, none is there twice, and none holds up another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from models import LogRecord
from scheduler import storing
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.logs import get_logger, keeping, records, store_records
from scheduler.logs.keeping import AT_ONCE
from tests.conftest import Stack
from tests.rules.process_logging import process_logging
from tests.services.stored import count, one, rows

log = get_logger("test")


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    with process_logging():
        yield


async def stored(database: Database) -> list[str]:
    """The events in the table, in the order in which they happened."""
    return [row.event for row in await rows(database, LogRecord)]


async def flush_all(database: Database) -> int:
    total = 0
    while flushed := await records.flush(database):
        total += flushed
    return total


# -- what is stored ------------------------------------------------------------------------------------------


async def test_a_record_as_it_is_stored(database: Database) -> None:
    run_id, user_id = new_id(), new_id()
    before = now()
    log.info(
        "run.succeeded",
        run_id=str(run_id),
        job="reap",
        user_id=str(user_id),
        request_id="abc",
        duration_ms=12,
        n={"a": 1},
    )
    assert await records.flush(database) == 1
    row = await one(database, LogRecord)
    assert before <= row.at <= now()
    assert (row.level, row.event, row.logger) == ("info", "run.succeeded", "test")
    assert (row.run_id, row.user_id, row.request_id, row.job) == (run_id, user_id, "abc", "reap")
    assert row.data == {"duration_ms": 12, "n": {"a": 1}}


async def test_ids_may_be_given_in_any_form_and_odd_ones_are_data(database: Database) -> None:
    run_id = new_id()
    log.info("first", run_id=run_id)
    log.info("second", run_id=run_id.hex, user_id=5)
    log.info("third", run_id="no id", job=7, request_id="r" * 500)
    await flush_all(database)
    first, second, third = await rows(database, LogRecord)
    assert first.run_id == second.run_id == run_id
    assert (second.user_id, second.data) == (None, {"user_id": 5})
    assert (third.run_id, third.job, third.data) == (None, "7", {"run_id": "no id"})
    assert third.request_id == "r" * 128


async def test_long_lines_of_libraries_are_whole_in_the_data(database: Database) -> None:
    logging.getLogger("library").warning("too long: %s", "x" * 1000)
    await flush_all(database)
    row = await one(database, LogRecord)
    assert len(row.event) == 200 and row.event.startswith("too long: xxx")
    assert row.data == {"message": "too long: " + "x" * 1000}


@contextmanager
def without_capture() -> Iterator[None]:
    """pytest's own capture would carry the text into its report, which xdist can't send with lone surrogates."""
    root = logging.getLogger()
    captures = [each for each in root.handlers if type(each).__module__ == "_pytest.logging"]
    for each in captures:
        root.removeHandler(each)
    yield
    for each in captures:
        root.addHandler(each)


async def test_any_text_can_be_stored(database: Database) -> None:
    texts = ["\udc80", "\x00", "😀" * 1000, "'; DROP TABLE log_record; --", "%s %(a)s {}", "\\", "é" * 5000, ""]
    with without_capture():
        for text in texts:
            log.warning("something.happened", text=text, run_id=str(new_id()))
            logging.getLogger(text[:5] or "x").warning(text)
    assert await flush_all(database) == 2 * len(texts)
    assert await count(database, LogRecord) == 2 * len(texts)


async def test_an_odd_record_does_not_hold_up_the_others(database: Database) -> None:
    for place in range(50):
        log.warning("before", run_id=str(new_id()))
        if place in (7, 8, 33):
            records.keep(at=now(), level=None, event="odd", logger="l", fields={}, size=9, family="odd")  # type: ignore[arg-type]
    log.warning("after")
    assert await flush_all(database) == 54
    assert await stored(database) == ["before"] * 50 + ["after"]
    assert records.dropped["refused"] == 3 and not len(records)


async def test_many_at_once(database: Database) -> None:
    total = 2 * AT_ONCE + 7
    for _ in range(total):
        log.info("run.succeeded", run_id=str(new_id()), job="reap", duration_ms=3)
    assert await records.flush(database) == AT_ONCE
    assert await flush_all(database) == total - AT_ONCE
    assert await count(database, LogRecord) == total
    ids = [row.id for row in await rows(database, LogRecord)]
    assert ids == [row.id for row in sorted(await rows(database, LogRecord), key=lambda row: row.at)]


async def test_large_records_go_in_smaller_batches(database: Database) -> None:
    for _ in range(100):
        log.error("run.failed", run_id=str(new_id()), error={str(place): "x" * 4000 for place in range(8)})
    assert 50 < await records.flush(database) < 100
    await flush_all(database)
    assert await count(database, LogRecord) == 100


# -- when it does not go well --------------------------------------------------------------------------------


@asynccontextmanager
async def away(stack: Stack) -> AsyncIterator[None]:
    """The database can't be had for a while."""
    if stack.mariadb is not None:
        await asyncio.to_thread(stack.mariadb.kill)
        try:
            yield
        finally:
            await asyncio.to_thread(stack.mariadb.ensure_running)
        return
    folder = stack.data_dir.rename(stack.data_dir.with_name("elsewhere"))
    try:
        yield
    finally:
        folder.rename(stack.data_dir)


@pytest.fixture
async def cold(stack: Stack) -> AsyncIterator[Database]:
    """The database, to which no connection is open yet."""
    database = Database(stack.database_url)
    yield database
    await database.dispose()


@pytest.mark.faults
async def test_a_database_that_is_away_loses_nothing(stack: Stack, cold: Database) -> None:
    log.warning("before")
    async with away(stack):
        for _ in range(3):
            with pytest.raises((OperationalError, OSError)):
                await records.flush(cold)
        log.warning("meanwhile")
        assert len(records) == 2
    assert await flush_all(cold) == 2
    assert await stored(cold) == ["before", "meanwhile"]


@pytest.mark.heavy(on="mariadb")
@pytest.mark.faults
async def test_the_loop_outlives_a_database_that_is_away(stack: Stack, cold: Database) -> None:
    task = asyncio.create_task(store_records(cold))
    async with away(stack):
        log.warning("meanwhile")
        await asyncio.sleep(1.2)
        assert not task.done() and len(records) == 1
    deadline = time.monotonic() + 15
    while len(records) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert await stored(cold) == ["meanwhile"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.faults
async def test_the_loop_ends_in_time_while_the_database_is_away(stack: Stack, cold: Database) -> None:
    task = asyncio.create_task(store_records(cold))
    async with away(stack):
        log.warning("meanwhile")
        await asyncio.sleep(0.6)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < storing.LAST_S + 0.5
    assert len(records) == 1


@pytest.mark.faults
@pytest.mark.parametrize("stack", ["mariadb"], indirect=True)
async def test_a_database_that_hangs_holds_up_nobody(stack: Stack, database: Database) -> None:
    assert stack.mariadb is not None
    log.warning("before")
    await flush_all(database)
    task = asyncio.create_task(store_records(database))
    stack.mariadb.pause()
    try:
        log.warning("meanwhile")
        for _ in range(20):
            began = time.monotonic()
            log.warning("meanwhile")
            await asyncio.sleep(0.05)
            assert time.monotonic() - began < 0.5
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < storing.LAST_S + 0.5
    finally:
        stack.mariadb.resume()
    await flush_all(database)
    assert await stored(database) == ["before"] + ["meanwhile"] * 21


class Landed(Database):
    """A database whose first commits land though the caller sees a failure."""

    failures = 2

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        async with super().write() as session:
            yield session
        if self.failures:
            self.failures -= 1
            raise OperationalError("COMMIT", {}, Exception(2013, "Lost connection to MySQL server during query"))


async def test_a_flush_that_landed_though_it_looked_failed_is_not_there_twice(stack: Stack) -> None:
    database = Landed(stack.database_url)
    for place in range(5):
        log.warning("something.happened", place=place)
    for _ in range(2):
        with pytest.raises(OperationalError):
            await records.flush(database)
        log.warning("later")
    assert await flush_all(database) == 7
    assert await stored(database) == ["something.happened"] * 5 + ["later"] * 2
    await database.dispose()


async def test_two_flushes_at_the_same_time(database: Database) -> None:
    for _ in range(3 * AT_ONCE):
        log.info("in.run", run_id=str(new_id()))
    await asyncio.gather(*(flush_all(database) for _ in range(3)), return_exceptions=True)
    await flush_all(database)
    assert await count(database, LogRecord) == 3 * AT_ONCE
    assert not len(records) and records._size == 0


async def test_what_is_logged_during_a_flush_is_stored_by_the_next(database: Database) -> None:
    log.warning("before")

    async def chatter() -> None:
        for _ in range(200):
            log.warning("meanwhile", run_id=str(new_id()))
            await asyncio.sleep(0)

    await asyncio.gather(records.flush(database), chatter())
    await flush_all(database)
    assert sorted(await stored(database)) == ["before"] + ["meanwhile"] * 200


async def test_a_flush_that_is_cancelled_loses_nothing_and_doubles_nothing(database: Database) -> None:
    for _ in range(30):
        log.info("in.run", run_id=str(new_id()))
        flushing = asyncio.create_task(records.flush(database))
        await asyncio.sleep(0.002)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
    await flush_all(database)
    assert await count(database, LogRecord) == 30


async def test_the_loop_stores_what_is_left_when_it_ends(database: Database) -> None:
    task = asyncio.create_task(store_records(database))
    await asyncio.sleep(0.01)
    for _ in range(AT_ONCE + 5):
        log.info("run.succeeded", run_id=str(new_id()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count(database, LogRecord) == AT_ONCE + 5


@pytest.mark.heavy(on="mariadb")
async def test_what_was_dropped_is_told_once_in_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "TELL_EVERY_S", 0.1)
    for _ in range(100):
        log.warning("a.storm")
    task = asyncio.create_task(store_records(database))
    await asyncio.sleep(2.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (told,) = await rows(database, LogRecord, LogRecord.event == "logs.records_dropped")
    assert told.data == {"full": 0, "run": 0, "repeated": 40, "refused": 0}


@pytest.mark.heavy(on="mariadb")
async def test_storing_leaves_the_loop_to_others(database: Database) -> None:
    """While thousands of records are stored, nobody waits long for the loop."""
    await flush_all(database)
    for _ in range(6000):
        log.info("run.succeeded", run_id=str(new_id()), job="reap", trigger="cron", attempt=1, duration_ms=3)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while len(records):
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)

    await asyncio.gather(watch(), flush_all(database))
    assert longest < 0.25


@pytest.mark.heavy(on="mariadb")
def test_the_process_writes_its_log_where_it_always_did(stack: Stack, tmp_path: Path) -> None:
    """`configure_logging` writes to standard output: one JSON object a line."""
    import json
    import subprocess
    import sys

    program = (
        "from scheduler.logs import configure_logging, get_logger\n"
        "from scheduler.settings import load_settings\n"
        "configure_logging(load_settings())\n"
        "get_logger('here').info('something.happened', n=1)\n"
    )
    environment: dict[str, Any] = {**stack.environment(), "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, cwd=tmp_path, env=environment, check=True
    )
    assert json.loads(done.stdout)["n"] == 1 and not done.stderr
