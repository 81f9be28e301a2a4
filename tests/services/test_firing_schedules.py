"""Firing schedules: each firing has one row, made by whoever is first, and `overlap` and `missed` are kept to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text, update
from structlog.testing import capture_logs

from models import Run, Schedule, User
from models.run import RunTrigger
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.dispatch import release_blocked
from scheduler.runs.enqueue import enqueue
from scheduler.runs.jobs import JOBS
from scheduler.schedules import fire
from scheduler.schedules.fire import fire_schedules
from scheduler.schedules.system import change_job, ensure_system_schedules
from scheduler.schedules.unfinished import unfinished_runs
from tests.factories import NOW, People, run_row
from tests.services.stored import count, one, rows, set_, statements, tally

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ACTION = {"type": "create_task", "task": {"title": "Water the plants"}}


async def add_schedule(database: Database, owner: Actor, cron: str = "0 * * * *", **columns: Any) -> UUID:
    """A schedule of a person; it is due at NOW unless `next_run_at` says otherwise."""
    row = {
        "id": new_id(),
        "user_id": owner.user_id,
        "system_job": None,
        "job": "run_schedule",
        "name": "Plants",
        "cron": cron,
        "timezone": "UTC",
        "action": ACTION,
        "enabled": True,
        "overlap": "skip",
        "missed": "once",
        "next_run_at": NOW,
        "created_at": NOW - DAY,
        "updated_at": NOW - DAY,
    } | columns
    async with database.write() as session:
        await session.execute(insert(Schedule.__table__), [row])
    return UUID(str(row["id"]))


async def finish(database: Database, *run_ids: UUID) -> None:
    """End runs as a worker would."""
    async with database.write() as session:
        await session.execute(
            update(Run.__table__).where(Run.id.in_(run_ids)).values(state="succeeded", finished_at=NOW, unique_key=None)
        )


async def release(database: Database) -> int:
    async with database.write() as session:
        return await release_blocked(session)


async def runs_of(database: Database, schedule_id: UUID) -> list[tuple[datetime, str, Any]]:
    """Scheduled time, state and result of each run, by time."""
    found = await rows(database, Run, Run.schedule_id == schedule_id)
    return sorted(((run.scheduled_for, run.state, run.result) for run in found), key=lambda each: each[0])


# -- one firing, one row -------------------------------------------------------------------------------------


async def test_a_firing_becomes_a_run(database: Database, people: People) -> None:
    schedule_id = await add_schedule(database, people.alice)
    woken = []
    database.wake_workers = lambda: woken.append(True)
    assert await fire_schedules(database, now=NOW - SECOND) == 0
    assert await fire_schedules(database, now=NOW + SECOND) == 1
    assert woken == [True]
    run = await one(database, Run)
    assert (run.job, run.trigger, run.state) == ("run_schedule", "cron", "queued")
    assert (run.schedule_id, run.scheduled_for, run.owner_id) == (schedule_id, NOW, people.alice.user_id)
    assert run.arguments == {"action": ACTION}
    assert (run.queued_at, run.attempt, run.max_attempts, run.result) == (NOW + SECOND, 0, 3, None)
    schedule = await one(database, Schedule)
    assert (schedule.next_run_at, schedule.updated_at) == (NOW + HOUR, NOW - DAY)
    assert await fire_schedules(database, now=NOW + SECOND) == 0
    assert await fire_schedules(database, now=NOW + HOUR) == 1


async def test_five_workers_at_once_make_each_run_once(database: Database, people: People) -> None:
    ids = [await add_schedule(database, people[number % 5], "*/5 * * * *") for number in range(60)]
    for step in range(3):
        now = NOW + step * 5 * MINUTE
        made = await asyncio.gather(*(fire_schedules(database, now=now, limit=7) for _ in range(5)))
        assert sum(made) == 60
    found = {(run.schedule_id, run.scheduled_for) for run in await rows(database, Run)}
    assert found == {(each, NOW + step * 5 * MINUTE) for each in ids for step in range(3)}
    assert await count(database, Run) == 180
    assert await tally(database, Schedule.next_run_at) == {NOW + 15 * MINUTE: 60}


async def test_a_change_while_firing_is_before_or_after_it(database: Database, people: People) -> None:
    """Whoever is first: what was changed counts from the change, and no firing has two rows or a wrong time."""
    ids = [await add_schedule(database, people.alice) for _ in range(10)]

    async def pause(schedule_id: UUID) -> None:
        async def work(session: Any) -> None:
            query = Schedule.__table__.select().where(Schedule.id == schedule_id).with_for_update()
            await session.execute(query)
            await asyncio.sleep(0.005)
            await session.execute(
                update(Schedule.__table__).where(Schedule.id == schedule_id).values(enabled=False, next_run_at=None)
            )

        await database.retry_write(work)

    await asyncio.gather(
        *(pause(each) for each in ids), *(fire_schedules(database, now=NOW, limit=3) for _ in range(3))
    )
    assert await tally(database, Schedule.next_run_at) == {None: 10}
    fired = [run.schedule_id for run in await rows(database, Run)]
    assert len(fired) == len(set(fired)) <= 10
    assert await fire_schedules(database, now=NOW + DAY) == 0


async def test_a_clock_that_is_set_back_repeats_nothing(database: Database, people: People) -> None:
    schedule_id = await add_schedule(database, people.alice, overlap="queue")
    assert await fire_schedules(database, now=NOW) == 1
    await set_(database, Schedule, schedule_id, next_run_at=NOW)
    assert await fire_schedules(database, now=NOW) == 0
    assert (await one(database, Schedule)).next_run_at == NOW + HOUR
    assert await count(database, Run) == 1


async def test_as_many_statements_for_one_as_for_a_hundred(database: Database, people: People) -> None:
    for number in range(100):
        await add_schedule(database, people[number % 5], next_run_at=NOW if number == 0 else NOW + HOUR)
    counts = []
    for now in (NOW, NOW + HOUR):
        await finish(database, *(run.id for run in await rows(database, Run)))
        with statements(database) as seen:
            assert await fire_schedules(database, now=now) == (1 if now == NOW else 100)
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 12
    with statements(database) as seen:
        assert await fire_schedules(database, now=now) == 0
    assert len([each for each in seen if each.startswith("SELECT")]) == len(
        [each for each in seen if not each.startswith("BEGIN")]
    )


async def test_a_rule_that_has_ended_is_due_no_more(database: Database, people: People) -> None:
    end = datetime.fromisoformat("2199-12-31T23:30:00+00:00")
    await add_schedule(database, people.alice, "30 23 * * *", next_run_at=end)
    assert await fire_schedules(database, now=end) == 1
    schedule = await one(database, Schedule)
    assert (schedule.next_run_at, schedule.enabled) == (None, True)


# -- whose -----------------------------------------------------------------------------------------------------


async def test_of_a_deactivated_person_nothing_fires(database: Database, people: People) -> None:
    await set_(database, User, people.bob.user_id, status="deactivated")
    await add_schedule(database, people.bob)
    kept = await add_schedule(database, people.carol)
    assert await fire_schedules(database, now=NOW + 3 * HOUR + SECOND) == 1
    assert [run.schedule_id for run in await rows(database, Run)] == [kept]
    assert await tally(database, Schedule.next_run_at) == {NOW + 4 * HOUR: 2}  # back again, nothing is made up for


async def test_the_services_own_jobs_fire(database: Database) -> None:
    async with database.write() as session:
        await ensure_system_schedules(session, now=NOW)
    at = NOW.replace(minute=17)
    assert await fire_schedules(database, now=at) == 1
    run = await one(database, Run)
    assert (run.job, run.trigger, run.owner_id, run.arguments) == ("cleanup", "cron", None, None)
    assert (run.scheduled_for, run.unique_key) == (at, "cleanup")
    async with database.write() as session:
        await change_job(session, name="cleanup", changes={"cron": "30 * * * * *"}, now=at)
    await finish(database, run.id)
    assert await fire_schedules(database, now=at + 30 * SECOND) == 1


async def test_while_run_schedule_is_disabled_firings_are_skipped_and_say_so(
    database: Database, people: People
) -> None:
    schedule_id = await add_schedule(database, people.alice)

    async def switch(enabled: bool) -> None:
        async with database.write() as session:
            await change_job(session, name="run_schedule", changes={"enabled": enabled}, now=NOW)

    await switch(False)
    assert await fire_schedules(database, now=NOW) == 1
    await switch(True)
    assert await fire_schedules(database, now=NOW + HOUR) == 1
    assert await runs_of(database, schedule_id) == [
        (NOW, "skipped", {"reason": "job_disabled"}),
        (NOW + HOUR, "queued", None),
    ]


# -- overlap -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["waiting", "blocked", "queued", "quarantined", "dispatched", "running"])
async def test_skip_leaves_out_what_would_overlap(database: Database, people: People, state: str) -> None:
    schedule_id = await add_schedule(database, people.alice)
    other_id = await add_schedule(database, people.alice)
    await fire_schedules(database, now=NOW)
    first = await one(database, Run, Run.schedule_id == schedule_id)
    other = await one(database, Run, Run.schedule_id == other_id)
    await finish(database, other.id)
    await set_(database, Run, first.id, state=state)
    with capture_logs() as logs:
        assert await fire_schedules(database, now=NOW + HOUR) == 2
    assert await runs_of(database, schedule_id) == [
        (NOW, state, None),
        (NOW + HOUR, "skipped", {"reason": "overlap", "run_id": str(first.id)}),
    ]
    skipped = await one(database, Run, Run.state == "skipped")
    assert (skipped.finished_at, skipped.duration_ms, skipped.started_at) == (NOW + HOUR, 0, None)
    records = [record for record in logs if record["event"].startswith("run.")]
    assert [(each["event"], each["run_id"], each["duration_ms"]) for each in records] == [
        ("run.skipped", str(skipped.id), 0)
    ]
    assert (records[0]["job"], records[0]["trigger"]) == ("run_schedule", "cron")
    assert records[0]["user_id"] == str(people.alice.user_id)
    await finish(database, first.id)
    await fire_schedules(database, now=NOW + 2 * HOUR)
    assert (await runs_of(database, schedule_id))[-1] == (NOW + 2 * HOUR, "queued", None)


async def test_queue_waits_for_its_turn(database: Database, people: People) -> None:
    schedule_id = await add_schedule(database, people.alice, overlap="queue")
    for step in range(3):
        await fire_schedules(database, now=NOW + step * HOUR)
    states = ["queued", "blocked", "blocked"]
    for done in range(3):
        found = await runs_of(database, schedule_id)
        assert [state for _, state, _ in found] == ["succeeded"] * done + states[: 3 - done]
        assert await release(database) == 0  # while one is unfinished, none is let go
        first = await one(database, Run, Run.scheduled_for == NOW + done * HOUR)
        await finish(database, first.id)
        assert await release(database) == (1 if done < 2 else 0)


async def test_two_firings_at_once_do_not_run_side_by_side(database: Database, people: People) -> None:
    """Both on time, as a minute is: the second is left out, or waits."""
    skip = await add_schedule(database, people.alice, "* * * * *")
    queue = await add_schedule(database, people.alice, "* * * * *", overlap="queue")
    assert await fire_schedules(database, now=NOW + MINUTE) == 4
    first = await one(database, Run, Run.schedule_id == skip, Run.scheduled_for == NOW)
    assert await runs_of(database, skip) == [
        (NOW, "queued", None),
        (NOW + MINUTE, "skipped", {"reason": "overlap", "run_id": str(first.id)}),
    ]
    assert [state for _, state, _ in await runs_of(database, queue)] == ["queued", "blocked"]


async def test_a_unique_job_that_somebody_asked_for_is_in_the_way(database: Database) -> None:
    async with database.write() as session:
        await ensure_system_schedules(session, now=NOW)
        asked = await enqueue(session, job="cleanup", trigger=RunTrigger.MANUAL, now=NOW)
    at = NOW.replace(minute=17)
    assert await fire_schedules(database, now=at) == 1
    schedule = await one(database, Schedule, Schedule.system_job == "cleanup")
    assert await runs_of(database, schedule.id) == [
        (at, "skipped", {"reason": "overlap", "run_id": str(asked)}),
    ]
    await finish(database, asked)
    await fire_schedules(database, now=at + HOUR)
    assert (await runs_of(database, schedule.id))[-1] == (at + HOUR, "queued", None)


async def test_a_unique_job_that_is_asked_for_at_that_very_moment(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the insert: the firing has its row all the same."""
    async with database.write() as session:
        await ensure_system_schedules(session, now=NOW)
        asked = await enqueue(session, job="cleanup", trigger=RunTrigger.MANUAL, now=NOW)
    at = NOW.replace(minute=17)
    looks = []
    real = fire._unique_runs

    async def blind_at_first(session: Any, jobs: Any) -> dict[str, UUID]:
        looks.append(set(jobs))
        return {} if len(looks) == 1 else await real(session, jobs)

    monkeypatch.setattr(fire, "_unique_runs", blind_at_first)
    assert await fire_schedules(database, now=at) == 1
    schedule = await one(database, Schedule, Schedule.system_job == "cleanup")
    assert await runs_of(database, schedule.id) == [
        (at, "skipped", {"reason": "overlap", "run_id": str(asked)}),
    ]
    assert looks == [{"cleanup"}, {"cleanup"}]


async def test_looking_for_what_overlaps_does_not_read_history(database: Database, people: People) -> None:
    """A schedule with a long history, and others' backlog: neither is walked through."""
    schedule_id = await add_schedule(database, people.alice)
    history = [
        run_row(NOW - number * MINUTE, job="run_schedule", queue="schedules", schedule_id=schedule_id)
        | {"owner_id": people.alice.user_id, "scheduled_for": NOW - number * MINUTE}
        for number in range(1, 3001)
    ]
    backlog = [
        run_row(NOW, job="run_schedule", queue="schedules", state="queued", schedule_id=new_id())
        | {"owner_id": people.bob.user_id}
        for _ in range(3000)
    ]
    async with database.write() as session:
        await session.execute(insert(Run.__table__), history + backlog)
    if database.is_mysql:
        async with database.write() as session:
            await session.execute(text("FLUSH STATUS"))
            await unfinished_runs(session, [schedule_id], jobs=["run_schedule"], owners=[people.alice.user_id])
            read = dict((await session.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))).tuples().all())
            assert sum(int(value) for value in read.values()) < 50
    else:
        with statements(database) as seen:
            await fire_schedules(database, now=NOW)
        (look,) = [each for each in seen if "coalesce(run.schedule_id" in each]
        async with database.read() as session:
            marks = look.count("?")
            connection = await session.connection()
            plan = (await connection.exec_driver_sql("EXPLAIN QUERY PLAN " + look, tuple([b""] * marks))).all()
        assert any("ix_run_state_queue_priority_owner_id" in row[3] for row in plan)
        assert any("owner_id=?" in row[3] for row in plan)


# -- missed ------------------------------------------------------------------------------------------------------


async def test_once_runs_one_time_for_all_that_was_missed(database: Database, people: People) -> None:
    schedule_id = await add_schedule(database, people.alice)
    with capture_logs() as logs:
        assert await fire_schedules(database, now=NOW + 5 * HOUR + 10 * MINUTE) == 1
    assert await runs_of(database, schedule_id) == [(NOW + 5 * HOUR, "queued", None)]
    assert (await one(database, Schedule)).next_run_at == NOW + 6 * HOUR
    run = await one(database, Run)
    (record,) = [record for record in logs if record["event"] == "schedule.caught_up"]
    assert (record["missed"], record["schedule_id"], record["run_id"]) == (5, str(schedule_id), str(run.id))


async def test_none_leaves_out_and_says_how_many(database: Database, people: People) -> None:
    schedule_id = await add_schedule(database, people.alice, "* * * * *", missed="none")
    with capture_logs() as logs:
        assert await fire_schedules(database, now=NOW + 10 * MINUTE + 30 * SECOND) == 2
    assert await runs_of(database, schedule_id) == [
        (NOW + 9 * MINUTE, "skipped", {"reason": "missed", "missed": 10}),
        (NOW + 10 * MINUTE, "queued", None),
    ]
    assert [each["event"] for each in logs if each["event"].startswith(("run.", "schedule."))] == ["run.skipped"]


async def test_a_missed_one_that_would_overlap_is_skipped_too(database: Database, people: People) -> None:
    schedule_id = await add_schedule(database, people.alice)
    await fire_schedules(database, now=NOW)
    first = await one(database, Run)
    with capture_logs() as logs:
        await fire_schedules(database, now=NOW + 4 * HOUR + 5 * MINUTE)
    assert (await runs_of(database, schedule_id))[1:] == [
        (NOW + 4 * HOUR, "skipped", {"reason": "overlap", "run_id": str(first.id)})
    ]
    assert "schedule.caught_up" not in {record["event"] for record in logs}


# -- what is wrong with one stops none of the others --------------------------------------------------------------


async def others(database: Database, people: People) -> Sequence[UUID]:
    return [await add_schedule(database, people.bob) for _ in range(3)]


@pytest.mark.parametrize(
    "columns",
    [{"cron": "whenever it suits"}, {"cron": "0 0 30 2 *"}, {"timezone": "Mars/Olympus"}, {"cron": "* * * * * *"}],
)
async def test_one_that_can_not_be_read_is_disabled(
    database: Database, people: People, columns: dict[str, str]
) -> None:
    bad = await add_schedule(database, people.alice, **columns)
    good = await others(database, people)
    with capture_logs() as logs:
        assert await fire_schedules(database, now=NOW) == 3
    assert {run.schedule_id for run in await rows(database, Run)} == set(good)
    schedule = await one(database, Schedule, Schedule.id == bad)
    assert (schedule.enabled, schedule.next_run_at, schedule.updated_at) == (False, None, NOW)
    assert [each["schedule_id"] for each in logs if each["event"] == "schedule.unreadable"] == [str(bad)]
    assert await fire_schedules(database, now=NOW) == 0


async def test_one_that_breaks_the_batch_is_disabled_alone(database: Database, people: People) -> None:
    """An action that is no JSON, which already the reading of the row trips over."""
    bad = await add_schedule(database, people.alice)
    good = await others(database, people)
    async with database.write() as session:
        await session.execute(text("UPDATE schedule SET action = '{broken' WHERE id = :id"), {"id": bad.bytes})
    with capture_logs() as logs:
        assert await fire_schedules(database, now=NOW) == 3
    assert {run.schedule_id for run in await rows(database, Run)} == set(good)
    assert [each["event"] for each in logs if each["log_level"] == "error"] == [
        "schedules.fired_one_by_one",
        "schedule.disabled",
    ]
    async with database.read() as session:
        found = await session.execute(Schedule.__table__.select().with_only_columns(Schedule.id, Schedule.enabled))
        assert {row.id for row in found if not row.enabled} == {bad}
    assert await fire_schedules(database, now=NOW) == 0


async def test_what_a_newer_version_declares_is_left_to_its_workers(
    database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule_id = await add_schedule(database, people.alice, job="brew_coffee")
    good = await others(database, people)
    assert await fire_schedules(database, now=NOW) == len(good)
    assert (await one(database, Schedule, Schedule.id == schedule_id)).next_run_at == NOW
    assert await fire_schedules(database, now=NOW) == 0
    monkeypatch.setitem(JOBS, "brew_coffee", JOBS["run_schedule"])
    assert await fire_schedules(database, now=NOW) == 1
