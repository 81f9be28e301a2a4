"""What firing leaves for operators: a run with its records, or nothing where nothing was due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from models import Delivery, Email, LogRecord, Reminder, Run
from scheduler import logs
from scheduler.database import Database
from scheduler.identifiers import new_id
from tests.factories import NOW, People, add_reminder, add_task
from tests.rules.process_logging import process_logging
from tests.services.conftest import Worker
from tests.services.stored import count, one, reap, rows, statements

SECOND = timedelta(seconds=1)


async def test_a_run_with_its_records(database: Database, people: People, worker: Worker) -> None:
    with process_logging():
        task_id = await add_task(database, people.alice)
        await add_reminder(database, task_id, people.alice, NOW)
        await worker.work()
        runs = {run.job: run for run in await rows(database, Run)}
        assert runs.keys() == {"send_reminders", "send_emails"}
        assert runs["send_reminders"].result == {
            "claimed": 1,
            "emails": 1,
            "late": 0,
            "skipped": 0,
            "lost": 0,
        }
        assert runs["send_emails"].result == {"sent": 1, "deferred": 0, "dead": 0, "handed_back": 0, "lost": 0}
        for run in runs.values():
            assert (run.state, run.trigger, run.attempt, run.worker) == ("succeeded", "cron", 1, "worker")
            assert run.finished_at is not None and run.duration_ms is not None
        assert await logs.records.flush(database) >= 3
        assert await logs.records.flush(database) == 0
        for run in runs.values():
            kept = await rows(database, LogRecord, LogRecord.run_id == run.id)
            assert [row.event for row in kept if row.event.startswith("run.")] == ["run.succeeded"]
            assert kept[-1].data["duration_ms"] == run.duration_ms
            assert {(row.job, row.data["attempt"], row.data["trigger"]) for row in kept} == {(run.job, 1, "cron")}


async def test_an_odd_record_does_not_hold_up_the_others(database: Database) -> None:
    with process_logging():
        log = logs.get_logger("test").bind(run_id=str(new_id()))
        for value in (1, {1: "a key that is no text"}, "\udc80", 2**70, 2):
            log.info("something.happened", value=value)
        assert await logs.records.flush(database) == 5
        assert await logs.records.flush(database) == 0
    stored = [row.data["value"] for row in await rows(database, LogRecord)]
    assert (stored[0], stored[-1]) == (1, 2)


async def test_nothing_due_is_no_run_and_costs_two_statements(database: Database, worker: Worker) -> None:
    with statements(database) as seen:
        assert await worker.tick() is None
    assert len([each for each in seen if each.startswith(("SELECT", "UPDATE", "INSERT"))]) == 2
    assert await worker.send() is None
    assert await reap(database, worker="w", now=NOW) is None
    assert await count(database, Run) == 0


async def test_a_run_that_fails_says_so(database: Database, people: People, worker: Worker) -> None:
    task_id = await add_task(database, people.alice)
    await add_reminder(database, task_id, people.alice, NOW)
    worker.settings = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        await worker.tick()
    run = await one(database, Run)
    assert (run.state, run.error["type"], run.result) == ("failed", "AttributeError", None)
    assert "require_verified_email" in run.error["traceback"]
    # Nothing half-done; what it held comes back.
    assert await count(database, Delivery) == await count(database, Email) == 0
    assert (await one(database, Reminder)).state == "claimed"
