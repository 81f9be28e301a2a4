"""The service's own schedules: declared, changed by operators, and asked by the ticks of every worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from models import Schedule
from scheduler.database import Database
from scheduler.errors import Invalid, NotFound
from scheduler.runs.jobs import EVERY_SECOND, JOBS
from scheduler.schedules.system import JobSchedule, TickGate, change_job, ensure_system_schedules, job_schedules
from tests.factories import NOW
from tests.services.stored import count, one, rows, set_, statements

SECOND = timedelta(seconds=1)
TICKS = {"send_reminders", "send_emails", "reap"}


async def ensure(database: Database, now: datetime = NOW) -> None:
    await database.retry_write(lambda session: ensure_system_schedules(session, now=now))


async def change(database: Database, name: str, now: datetime = NOW, **changes: Any) -> JobSchedule:
    async with database.write() as session:
        return await change_job(session, name=name, changes=changes, now=now)


async def shown(database: Database, name: str, now: datetime = NOW) -> JobSchedule:
    async with database.read() as session:
        return (await job_schedules(session, now=now))[name]


async def refreshed(database: Database, gate: TickGate | None = None) -> TickGate:
    gate = gate or TickGate()
    async with database.read() as session:
        await gate.refresh(session)
    return gate


def wrong(error: pytest.ExceptionInfo[Invalid]) -> list[str]:
    return [each.field for each in error.value.errors]


# -- declared ------------------------------------------------------------------------------------------------


async def test_each_job_with_a_cron_has_one_row(database: Database) -> None:
    for now in (NOW, NOW + timedelta(days=1)):
        await ensure(database, now)
    stored = {row.system_job: row for row in await rows(database, Schedule)}
    assert set(stored) == {name for name, job in JOBS.items() if job.cron is not None}
    for name, row in stored.items():
        job = JOBS[name]
        assert (row.job, row.name, row.user_id, row.action) == (name, name, None, None)
        assert (row.cron, row.timezone, row.enabled) == (job.cron, job.timezone, True)
        assert (row.overlap, row.missed) == (job.overlap.value, job.missed.value)
        assert row.created_at == row.updated_at == NOW
    # Only what fires by cron is there to be claimed.
    assert {name for name, row in stored.items() if row.next_run_at is None} == TICKS
    assert stored["cleanup"].next_run_at == NOW.replace(minute=17)


async def test_workers_that_start_at_once_make_one_row_each(database: Database) -> None:
    await asyncio.gather(*(ensure(database) for _ in range(8)))
    assert await count(database, Schedule) == sum(job.cron is not None for job in JOBS.values())


async def test_a_row_that_nobody_touched_follows_the_declaration(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(database)
    await change(database, "send_emails", cron="*/2 * * * * *")
    for name in ("cleanup", "send_emails", "reap"):
        monkeypatch.setitem(JOBS, name, replace(JOBS[name], cron="30 4 * * *"))
    later = NOW + timedelta(hours=1)
    await ensure(database, later)
    stored = {row.system_job: row for row in await rows(database, Schedule)}
    assert (stored["cleanup"].cron, stored["reap"].cron) == ("30 4 * * *", "30 4 * * *")
    assert stored["cleanup"].next_run_at == datetime(2026, 3, 3, 4, 30, tzinfo=UTC)
    assert stored["reap"].next_run_at is None
    assert stored["send_emails"].cron == "*/2 * * * * *"


# -- changed -------------------------------------------------------------------------------------------------


async def test_what_is_shown_is_what_is_declared_until_a_worker_has_started(database: Database) -> None:
    assert await shown(database, "cleanup") == JobSchedule("17 * * * *", "UTC", True, NOW.replace(minute=17))
    assert await shown(database, "run_schedule") == JobSchedule(None, "UTC", True, None)
    assert await shown(database, "reap") == JobSchedule(EVERY_SECOND, "UTC", True, NOW + SECOND)
    with statements(database) as seen:
        async with database.read() as session:
            assert set(await job_schedules(session, now=NOW)) == set(JOBS)
    assert len([each for each in seen if each.startswith("SELECT")]) == 1


@pytest.mark.parametrize("is_ensured", [True, False])
async def test_another_cron_counts_from_now(database: Database, is_ensured: bool) -> None:
    if is_ensured:
        await ensure(database)
    changed = await change(database, "cleanup", cron=" 45  */2 * * * ")
    assert changed == JobSchedule("45 */2 * * *", "UTC", True, NOW.replace(minute=45))
    assert changed == await shown(database, "cleanup")
    assert (await one(database, Schedule, Schedule.system_job == "cleanup")).next_run_at == NOW.replace(minute=45)
    six = await change(database, "cleanup", cron="30 * * * * *")
    assert six.next_run_at == NOW.replace(second=30)
    tick = await change(database, "reap", cron="*/5 * * * * *")
    assert tick.next_run_at == NOW.replace(second=5)
    assert (await one(database, Schedule, Schedule.system_job == "reap")).next_run_at is None


async def test_disabled_and_enabled_again(database: Database) -> None:
    await ensure(database)
    assert await change(database, "cleanup", enabled=False) == JobSchedule("17 * * * *", "UTC", False, None)
    assert (await one(database, Schedule, Schedule.system_job == "cleanup")).next_run_at is None
    # Changed while it is disabled, it stays so.
    assert (await change(database, "cleanup", cron="0 * * * *")).next_run_at is None
    later = NOW + timedelta(days=2, minutes=1)
    changed = await change(database, "cleanup", now=later, enabled=True)
    assert changed.next_run_at == later.replace(minute=0) + timedelta(hours=1)
    await ensure(database, later)
    assert await shown(database, "cleanup", later) == changed


async def test_what_changes_nothing_changes_nothing(database: Database) -> None:
    await ensure(database)
    before = await rows(database, Schedule)
    due = NOW.replace(minute=17) + SECOND  # a firing that no worker has come to yet is not lost
    await change(database, "cleanup", now=due, enabled=True, cron="17 * * * *")
    await change(database, "cleanup", now=due)
    assert await rows(database, Schedule) == before


async def test_a_change_is_no_less_one_for_coming_at_once(database: Database) -> None:
    """Or by a clock that is behind: the next worker that starts must not take it back."""
    await ensure(database)
    await change(database, "cleanup", now=NOW - timedelta(minutes=1), cron="5 5 * * *")
    await ensure(database)
    assert (await shown(database, "cleanup")).cron == "5 5 * * *"


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("cleanup", {"cron": "61 * * * *"}, "/cron"),
        ("cleanup", {"cron": "0 0 30 2 *"}, "/cron"),
        ("cleanup", {"cron": "* * * * * * *"}, "/cron"),
        ("cleanup", {"cron": ""}, "/cron"),
        ("cleanup", {"cron": None}, "/cron"),
        ("cleanup", {"enabled": None}, "/enabled"),
        ("run_schedule", {"cron": "* * * * *"}, "/cron"),
    ],
)
async def test_what_can_not_be_set(database: Database, name: str, changes: dict[str, Any], field: str) -> None:
    await ensure(database)
    before = await rows(database, Schedule)
    with pytest.raises(Invalid) as error:
        await change(database, name, **changes)
    assert wrong(error) == [field]
    assert await rows(database, Schedule) == before


async def test_there_is_no_such_job(database: Database) -> None:
    with pytest.raises(NotFound):
        await change(database, "mine_bitcoin", enabled=False)


async def test_a_job_without_a_cron_can_only_be_disabled(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await change(database, "run_schedule", enabled=False) == JobSchedule(None, "UTC", False, None)
    assert await shown(database, "run_schedule") == JobSchedule(None, "UTC", False, None)
    row = await one(database, Schedule)
    assert (row.system_job, row.next_run_at) == ("run_schedule", None)
    assert await change(database, "run_schedule", enabled=True) == JobSchedule(None, "UTC", True, None)
    # One that nothing fires has nothing to disable.
    monkeypatch.setitem(JOBS, "cleanup", replace(JOBS["cleanup"], cron=None))
    with pytest.raises(Invalid) as error:
        await change(database, "cleanup", enabled=False)
    assert wrong(error) == ["/enabled"]


# -- ticks ---------------------------------------------------------------------------------------------------


def opens(gate: TickGate, name: str, seconds: int, *, step: float = 1.0) -> list[int]:
    """At which of the looks, `step` seconds apart, the gate is open."""
    looks = [NOW + number * step * SECOND for number in range(seconds + 1)]
    pairs = pairwise(looks)
    return [number for number, (since, until) in enumerate(pairs, 1) if gate.is_open(name, since=since, until=until)]


async def test_a_tick_is_open_when_its_cron_fires(database: Database) -> None:
    gate = TickGate()
    assert opens(gate, "reap", 5) == [1, 2, 3, 4, 5]  # as declared, before the database was asked
    await ensure(database)
    await refreshed(database, gate)
    assert opens(gate, "reap", 5) == [1, 2, 3, 4, 5]
    assert opens(gate, "reap", 5, step=0.5) == [2, 4]
    await change(database, "reap", cron="*/3 * * * * *")
    assert opens(gate, "reap", 6) == [1, 2, 3, 4, 5, 6]
    await refreshed(database, gate)
    assert opens(gate, "reap", 12) == [3, 6, 9, 12]
    assert opens(gate, "reap", 6, step=4) == [1, 2, 3, 4, 5, 6]  # late looks miss none
    assert opens(gate, "send_emails", 2) == [1, 2]
    await change(database, "reap", enabled=False)
    await refreshed(database, gate)
    assert opens(gate, "reap", 12) == []
    await change(database, "reap", enabled=True, cron="* * * * *")
    await refreshed(database, gate)
    assert opens(gate, "reap", 120) == [60, 120]


def test_between_two_looks_within_a_second_nothing_fires() -> None:
    gate = TickGate()
    assert not gate.is_open("reap", since=NOW, until=NOW)
    assert not gate.is_open("reap", since=NOW, until=NOW + 0.9 * SECOND)
    assert gate.is_open("reap", since=NOW + 0.9 * SECOND, until=NOW + SECOND)
    assert not gate.is_open("reap", since=NOW + SECOND, until=NOW)  # the clock was set back
    assert not gate.is_open("cleanup", since=NOW, until=NOW + timedelta(hours=2))  # no tick
    assert not gate.is_open("mine_bitcoin", since=NOW, until=NOW + timedelta(hours=2))


async def test_one_statement_tells_of_every_tick(database: Database) -> None:
    await ensure(database)
    gate = TickGate()
    with statements(database) as seen:
        await refreshed(database, gate)
    assert len([each for each in seen if each.startswith("SELECT")]) == 1


async def test_what_can_not_be_read_changes_nothing(database: Database) -> None:
    """A row of another version, or one that somebody changed by hand: the tick goes on as it did."""
    await ensure(database)
    gate = await refreshed(database)
    for name in ("reap", "send_emails"):
        row = await one(database, Schedule, Schedule.system_job == name)
        await set_(database, Schedule, row.id, cron="whenever it suits")
    await change(database, "send_reminders", cron="*/2 * * * * *")
    await refreshed(database, gate)
    assert opens(gate, "reap", 3) == [1, 2, 3]
    assert opens(gate, "send_reminders", 4) == [2, 4]
    assert await shown(database, "reap") == JobSchedule("whenever it suits", "UTC", True, None)
    assert (await change(database, "reap", cron=EVERY_SECOND)).next_run_at == NOW + SECOND


async def test_while_the_database_is_away_the_last_answer_holds(database: Database) -> None:
    await ensure(database)
    await change(database, "reap", cron="*/3 * * * * *")
    gate = await refreshed(database)
    away = Database(
        "mysql+aiomysql://nobody:nothing@127.0.0.1:1/none" if database.is_mysql else "sqlite+aiosqlite:////nowhere/x"
    )
    with pytest.raises(Exception):  # noqa: B017 (whatever the driver says)
        await refreshed(away, gate)
    await away.dispose()
    assert opens(gate, "reap", 6) == [3, 6]
