"""People's own schedules: made, changed, paused, deleted, run now, made up for, and read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from models import Run, Schedule
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.errors import BadCursor, Invalid, NotFound
from scheduler.identifiers import new_id
from scheduler.runs.dispatch import release_blocked
from scheduler.schedules.fire import fire_schedules
from scheduler.schedules.manage import (
    MOST_OF_A_BACKFILL,
    MOST_OF_A_PERSON,
    backfill_schedule,
    change_schedule,
    create_schedule,
    delete_schedule,
    trigger_schedule,
)
from scheduler.schedules.read import ScheduleDetails, get_schedule, list_schedule_runs, list_schedules
from scheduler.settings import Settings
from tests.factories import NOW, People, add_person
from tests.services.stored import count, one, rows, set_, statements, tally
from tests.services.test_firing_schedules import ACTION, add_schedule, finish, runs_of

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
VALUES = {"name": "Plants", "cron": "0 9 * * MON-FRI", "action": ACTION}
NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)
"""The first firing of VALUES after NOW."""


class Service:
    """The services, each call a transaction of its own."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings, self.now = database, settings, NOW

    async def create(self, actor: Actor, **values: Any) -> UUID:
        async with self.database.write() as session:
            return await create_schedule(
                session, actor=actor, values=VALUES | values, settings=self.settings, now=self.now
            )

    async def change(self, actor: Actor, schedule_id: UUID, **changes: Any) -> None:
        async with self.database.write() as session:
            await change_schedule(
                session,
                actor=actor,
                schedule_id=schedule_id,
                changes=changes,
                settings=self.settings,
                now=self.now,
            )

    async def delete(self, actor: Actor, schedule_id: UUID) -> None:
        async with self.database.write() as session:
            await delete_schedule(session, actor=actor, schedule_id=schedule_id, now=self.now)

    async def trigger(self, actor: Actor, schedule_id: UUID, **options: Any) -> UUID:
        async with self.database.write() as session:
            return await trigger_schedule(session, actor=actor, schedule_id=schedule_id, now=self.now, **options)

    async def backfill(self, actor: Actor, schedule_id: UUID, since: datetime, until: datetime) -> int:
        async with self.database.write() as session:
            return await backfill_schedule(
                session, actor=actor, schedule_id=schedule_id, since=since, until=until, now=self.now
            )

    async def get(self, actor: Actor, schedule_id: UUID) -> ScheduleDetails:
        async with self.database.read() as session:
            return await get_schedule(session, actor=actor, schedule_id=schedule_id, now=self.now)

    async def list(self, actor: Actor, **options: Any) -> Any:
        async with self.database.read() as session:
            return await list_schedules(session, actor=actor, now=self.now, **{"limit": 50} | options)

    async def list_runs(self, actor: Actor, schedule_id: UUID, **options: Any) -> Any:
        async with self.database.read() as session:
            return await list_schedule_runs(session, actor=actor, schedule_id=schedule_id, **{"limit": 50} | options)

    async def fire(self) -> int:
        return await fire_schedules(self.database, now=self.now)


@pytest.fixture
def service(database: Database, settings: Settings) -> Service:
    return Service(database, settings)


def wrong(error: pytest.ExceptionInfo[Invalid]) -> list[str]:
    return [each.field for each in error.value.errors]


# -- made ------------------------------------------------------------------------------------------------------


async def test_a_schedule_with_its_defaults(service: Service, database: Database) -> None:
    anna = await add_person(database, "anna", timezone="Europe/Berlin")
    schedule_id = await service.create(anna)
    row = (await service.get(anna, schedule_id)).row
    assert (row.id, row.user_id, row.job, row.system_job) == (schedule_id, anna.user_id, "run_schedule", None)
    assert (row.name, row.cron, row.timezone, row.action) == ("Plants", "0 9 * * MON-FRI", "Europe/Berlin", ACTION)
    assert (row.enabled, row.overlap, row.missed) == (True, "skip", "once")
    assert row.next_run_at == NINE - HOUR
    assert row.created_at == row.updated_at == NOW


async def test_a_schedule_with_everything_given(service: Service, people: People) -> None:
    schedule_id = await service.create(
        people.alice,
        cron="  30 2 * * *",
        timezone="America/New_York",
        enabled=False,
        overlap="queue",
        missed="none",
        action={"type": "http_request", "url": "https://example.com/", "expect_status": 204},
    )
    found = await service.get(people.alice, schedule_id)
    assert (found.row.cron, found.row.timezone, found.row.overlap, found.row.missed) == (
        "30 2 * * *",
        "America/New_York",
        "queue",
        "none",
    )
    assert found.row.action == {"type": "http_request", "url": "https://example.com/", "expect_status": 204}
    assert (found.next_run_at, found.last_run, found.row.enabled) == (None, None, False)
    assert await service.fire() == 0


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"cron": "61 * * * *"}, ["/cron"]),
        ({"cron": "* * * * * *"}, ["/cron"]),
        ({"cron": "0 0 30 2 *"}, ["/cron"]),
        # In a gap each time: wildcards leave out what the clock skips.
        ({"cron": "*/30 2 * 3 SUN#2", "timezone": "America/New_York"}, ["/cron"]),
        ({"cron": None}, ["/cron"]),
        ({"timezone": "Mars/Olympus"}, ["/timezone"]),
        ({"timezone": "Mars/Olympus", "cron": "61 * * * *", "name": ""}, ["/name", "/timezone"]),
        ({"name": "n" * 201}, ["/name"]),
        ({"name": None, "action": None}, ["/name", "/action"]),
        ({"overlap": "both", "missed": "twice"}, ["/overlap", "/missed"]),
        ({"action": {"type": "launch_rocket"}}, ["/action/type"]),
        ({"action": {"type": "http_request", "url": "http://127.0.0.1/"}}, ["/action/url"]),
    ],
)
async def test_what_is_refused(service: Service, people: People, values: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(Invalid) as error:
        await service.create(people.alice, **values)
    assert wrong(error) == fields
    assert await count(service.database, Schedule) == 0


async def test_a_person_has_so_many_at_the_most(service: Service, people: People) -> None:
    await service.create(people.bob)
    for _ in range(MOST_OF_A_PERSON):
        await add_schedule(service.database, people.alice)
    with pytest.raises(Invalid) as error:
        await service.create(people.alice)
    assert "200" in error.value.errors[0].message
    await service.create(people.bob)


# -- whose -----------------------------------------------------------------------------------------------------


async def test_only_its_owner_sees_it(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice)
    for actor in (people.bob, people.dora, people.eve):
        for attempt in (
            service.get(actor, schedule_id),
            service.change(actor, schedule_id, name="Mine"),
            service.delete(actor, schedule_id),
            service.trigger(actor, schedule_id),
            service.backfill(actor, schedule_id, NOW - DAY, NOW),
            service.list_runs(actor, schedule_id),
        ):
            with pytest.raises(NotFound):
                await attempt
        assert (await service.list(actor)).items == []
    with pytest.raises(NotFound):
        await service.get(people.alice, new_id())
    assert (await service.get(people.alice, schedule_id)).row.name == "Plants"


async def test_the_services_own_are_nobodys(service: Service, people: People, database: Database) -> None:
    schedule_id = await add_schedule(database, people.alice, system_job="cleanup", job="cleanup", user_id=None)
    for actor in people:
        with pytest.raises(NotFound):
            await service.get(actor, schedule_id)
        assert (await service.list(actor)).items == []


# -- changed ---------------------------------------------------------------------------------------------------


async def test_another_time_counts_from_now(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice)
    service.now = NINE + MINUTE  # a firing is due, and nobody has come to it
    await service.change(people.alice, schedule_id, cron="*/30 * * * *")
    found = await service.get(people.alice, schedule_id)
    assert (found.next_run_at, found.row.next_run_at) == (NINE + 30 * MINUTE, NINE + 30 * MINUTE)
    assert (found.row.created_at, found.row.updated_at) == (NOW, NINE + MINUTE)
    await service.change(people.alice, schedule_id, cron="0 9 * * *", timezone="Asia/Tokyo")
    assert (await service.get(people.alice, schedule_id)).next_run_at == NINE + 15 * HOUR
    await service.change(people.alice, schedule_id, timezone=None)
    found = await service.get(people.alice, schedule_id)
    assert (found.row.timezone, found.next_run_at) == ("UTC", NINE + DAY)
    assert await service.fire() == 0


async def test_resuming_runs_nothing_that_was_missed(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice)
    await service.change(people.alice, schedule_id, enabled=False)
    assert (await service.get(people.alice, schedule_id)).next_run_at is None
    service.now = NINE + 2 * DAY + MINUTE
    await service.change(people.alice, schedule_id, cron="0 8,9 * * *")
    assert (await service.get(people.alice, schedule_id)).next_run_at is None
    assert await service.fire() == 0
    await service.change(people.alice, schedule_id, enabled=True)
    assert (await service.get(people.alice, schedule_id)).next_run_at == NINE + 3 * DAY - HOUR
    assert await service.fire() == 0
    assert await count(service.database, Run) == 0


async def test_what_changes_no_time_loses_no_firing(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice)
    service.now = NINE + SECOND  # due
    other = {"type": "create_task", "task": {"title": "Feed the cat"}}
    await service.change(
        people.alice,
        schedule_id,
        name="Cat",
        action=other,
        overlap="queue",
        missed="none",
        enabled=True,
        timezone="UTC",
        cron="0  9 * * MON-FRI",
    )
    found = await service.get(people.alice, schedule_id)
    assert (found.row.name, found.row.action, found.row.overlap, found.row.missed) == ("Cat", other, "queue", "none")
    assert (found.row.cron, found.row.next_run_at) == ("0 9 * * MON-FRI", NINE)
    assert found.next_run_at == NINE + DAY  # what is shown is ahead
    assert await service.fire() == 1
    assert (await one(service.database, Run)).arguments == {"action": other}
    await service.change(people.alice, schedule_id, overlap=None, missed=None, enabled=None)
    found = await service.get(people.alice, schedule_id)
    assert (found.row.overlap, found.row.missed, found.row.enabled) == ("skip", "once", True)
    service.now += HOUR
    await service.change(people.alice, schedule_id, name="Cat")
    await service.change(people.alice, schedule_id)
    assert (await service.get(people.alice, schedule_id)).row.updated_at == NINE + SECOND


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"cron": "61 * * * *"}, ["/cron"]),
        ({"cron": None}, ["/cron"]),
        ({"name": None}, ["/name"]),
        ({"name": ""}, ["/name"]),
        ({"timezone": "Nowhere"}, ["/timezone"]),
        ({"overlap": "both"}, ["/overlap"]),
        ({"action": {"type": "create_task"}}, ["/action/task"]),
        ({"action": None}, ["/action"]),
    ],
)
async def test_a_change_that_is_refused_changes_nothing(
    service: Service, people: People, changes: dict[str, Any], fields: list[str]
) -> None:
    schedule_id = await service.create(people.alice)
    before = await rows(service.database, Schedule)
    service.now = NINE
    with pytest.raises(Invalid) as error:
        await service.change(people.alice, schedule_id, **changes)
    assert wrong(error) == fields
    assert await rows(service.database, Schedule) == before


async def test_one_that_can_not_be_read_is_changed_and_resumed(service: Service, people: People) -> None:
    """`fire_schedules` has disabled it."""
    schedule_id = await service.create(people.alice)
    await set_(service.database, Schedule, schedule_id, cron="whenever", enabled=False, next_run_at=None)
    await service.change(people.alice, schedule_id, name="Cat")
    with pytest.raises(Invalid) as error:
        await service.change(people.alice, schedule_id, enabled=True)
    assert wrong(error) == ["/cron"]
    with pytest.raises(Invalid):
        await service.backfill(people.alice, schedule_id, NOW - DAY, NOW)
    await service.change(people.alice, schedule_id, enabled=True, cron="0 9 * * *")
    assert (await service.get(people.alice, schedule_id)).next_run_at == NINE


# -- deleted ---------------------------------------------------------------------------------------------------


async def test_deleting_leaves_history_and_cancels_what_nobody_began(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice, overlap="queue", cron="0 * * * *")
    other_id = await service.create(people.alice, cron="0 * * * *")
    for step in range(1, 5):
        service.now = NOW + step * HOUR
        await service.fire()
    first, second, *_ = sorted(
        await rows(service.database, Run, Run.schedule_id == schedule_id), key=lambda run: run.scheduled_for
    )
    await finish(service.database, first.id)
    await set_(service.database, Run, second.id, state="running")
    with capture_logs() as logs:
        await service.delete(people.alice, schedule_id)
    with pytest.raises(NotFound):
        await service.get(people.alice, schedule_id)
    assert [state for _, state, _ in await runs_of(service.database, schedule_id)] == [
        "succeeded",
        "running",
        "cancelled",
        "cancelled",
    ]
    cancelled = await rows(service.database, Run, Run.state == "cancelled")
    assert [(run.finished_at, run.duration_ms, run.seq) for run in cancelled] == [(service.now, 0, 1)] * 2
    assert [each["run_id"] for each in logs if each["event"] == "run.cancelled"] == [str(run.id) for run in cancelled]
    # The other schedule's are as they were.
    assert await tally(service.database, Run.schedule_id) == {schedule_id: 4, other_id: 4}
    assert (await runs_of(service.database, other_id))[0][1] == "queued"
    service.now += HOUR
    assert await service.fire() == 1
    with pytest.raises(NotFound):
        await service.delete(people.alice, schedule_id)


# -- run now -----------------------------------------------------------------------------------------------------


async def test_run_now(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice, enabled=False)
    woken = []
    service.database.wake_workers = lambda: woken.append(True)
    run_id = await service.trigger(people.alice, schedule_id, request_id="request-1")
    assert woken == [True]
    run = await one(service.database, Run)
    assert (run.id, run.job, run.trigger, run.state) == (run_id, "run_schedule", "manual", "queued")
    assert (run.owner_id, run.schedule_id, run.scheduled_for) == (people.alice.user_id, schedule_id, None)
    assert (run.arguments, run.request_id) == ({"action": ACTION}, "request-1")
    # Behind what is under way.
    second = await service.trigger(people.alice, schedule_id)
    assert (await one(service.database, Run, Run.id == second)).state == "blocked"
    await finish(service.database, run_id)
    async with service.database.write() as session:
        assert await release_blocked(session) == 1
    assert (await one(service.database, Run, Run.id == second)).state == "queued"


async def test_run_now_with_a_key_runs_once(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice)
    ids = {await service.trigger(people.alice, schedule_id, idempotency_key="alice:1") for _ in range(3)}
    assert len(ids) == await count(service.database, Run) == 1


async def test_asked_for_at_once_they_run_one_by_one(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice)
    await asyncio.gather(*(service.trigger(people.alice, schedule_id) for _ in range(5)))
    assert await tally(service.database, Run.state) == {"queued": 1, "blocked": 4}


# -- made up for -----------------------------------------------------------------------------------------------


async def test_backfill_makes_what_is_not_there(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice, cron="0 * * * *")
    service.now = NOW + HOUR
    await service.fire()
    first = await one(service.database, Run)
    await finish(service.database, first.id)
    service.now = NOW + 3 * HOUR + MINUTE
    # From is in it, until is not.
    assert await service.backfill(people.alice, schedule_id, NOW - 2 * HOUR, NOW + 3 * HOUR) == 4
    times = [NOW + step * HOUR for step in range(-2, 3)]
    assert [(at, state) for at, state, _ in await runs_of(service.database, schedule_id)] == list(
        zip(times, ["queued", "blocked", "blocked", "succeeded", "blocked"], strict=True)
    )
    runs = await rows(service.database, Run, Run.id != first.id)
    assert {(run.trigger, run.owner_id, run.job) for run in runs} == {("manual", people.alice.user_id, "run_schedule")}
    assert await service.backfill(people.alice, schedule_id, NOW - 2 * HOUR, NOW + 3 * HOUR) == 0
    # One after the other, the earliest first; and what comes by cron meanwhile is left out.
    service.now = NOW + 4 * HOUR
    await service.fire()
    done = []
    while waiting := await rows(service.database, Run, Run.state == "queued"):
        (run,) = waiting
        done.append(run.scheduled_for)
        await finish(service.database, run.id)
        async with service.database.write() as session:
            await release_blocked(session)
    assert done == [NOW + step * HOUR for step in (-2, -1, 0, 2)]
    assert (await runs_of(service.database, schedule_id))[-1][1] == "skipped"


async def test_backfill_is_bounded(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice, cron="* * * * *", enabled=False)
    with pytest.raises(Invalid) as error:
        await service.backfill(people.alice, schedule_id, NOW - 1001 * MINUTE, NOW)
    assert wrong(error) == ["/from"] and str(MOST_OF_A_BACKFILL) in error.value.errors[0].message
    assert await service.backfill(people.alice, schedule_id, NOW - 1000 * MINUTE, NOW) == 1000
    with pytest.raises(Invalid):
        await service.backfill(people.alice, schedule_id, datetime(1970, 1, 1, tzinfo=UTC), NOW)


@pytest.mark.parametrize(
    ("since", "until", "field"),
    [
        (NOW - HOUR, NOW + SECOND, "/until"),
        (NOW - HOUR, NOW - HOUR, "/from"),
        (NOW - HOUR, NOW - 2 * HOUR, "/from"),
        (datetime(1969, 1, 1, tzinfo=UTC), NOW, "/from"),
    ],
)
async def test_backfill_is_of_the_past(
    service: Service, people: People, since: datetime, until: datetime, field: str
) -> None:
    schedule_id = await service.create(people.alice)
    with pytest.raises(Invalid) as error:
        await service.backfill(people.alice, schedule_id, since, until)
    assert wrong(error) == [field]
    assert await service.backfill(people.alice, schedule_id, NOW - HOUR, NOW) == 0  # nothing fires then


async def test_two_backfills_at_once_make_each_run_once(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice, cron="*/10 * * * *")
    made = await asyncio.gather(
        *(service.backfill(people.alice, schedule_id, NOW - 5 * HOUR, NOW - step * HOUR) for step in range(4))
    )
    assert sum(made) == await count(service.database, Run) == 30
    assert await tally(service.database, Run.state) == {"queued": 1, "blocked": 29}


# -- read --------------------------------------------------------------------------------------------------------


async def test_the_last_run_is_the_newest(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice, cron="0 * * * *")
    assert (await service.get(people.alice, schedule_id)).last_run is None
    for step in (1, 2):
        service.now = NOW + step * HOUR
        await service.fire()
    last = (await service.get(people.alice, schedule_id)).last_run
    assert last is not None
    assert (last.scheduled_for, last.state) == (NOW + 2 * HOUR, "skipped")
    service.now += MINUTE
    run_id = await service.trigger(people.alice, schedule_id)
    last = (await service.get(people.alice, schedule_id)).last_run
    assert last is not None and last.id == run_id


async def test_pages_of_schedules_newest_first(service: Service, people: People) -> None:
    ids = []
    for number in range(7):
        service.now = NOW + (number // 2) * SECOND  # some at one instant
        ids.append(await service.create(people.alice, name=f"Number {number}", cron="0 * * * *"))
    await service.create(people.bob)
    service.now = NOW + HOUR
    await service.fire()
    seen, cursor = [], None
    while True:
        found = await service.list(people.alice, limit=3, cursor=cursor, count=True)
        assert found.total == 7
        assert all(each.last_run.schedule_id == each.row.id for each in found.items)
        assert all(each.next_run_at == NOW + 2 * HOUR for each in found.items)
        seen += [each.row.id for each in found.items]
        cursor = found.next_cursor
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert (await service.list(people.bob)).total is None
    with pytest.raises(BadCursor):
        await service.list(people.alice, cursor="nonsense")


async def test_a_page_costs_the_same_whatever_its_length(service: Service, people: People) -> None:
    for _ in range(30):
        await add_schedule(service.database, people.alice)
    await fire_schedules(service.database, now=NOW)
    costs = []
    for limit in (2, 30):
        with statements(service.database) as seen:
            assert len((await service.list(people.alice, limit=limit)).items) == limit
        costs.append(len(seen))
    assert costs[0] == costs[1] <= 4


async def test_a_schedules_runs(service: Service, people: People) -> None:
    schedule_id = await service.create(people.alice, cron="0 * * * *")
    other_id = await service.create(people.alice, cron="0 * * * *")
    for step in range(1, 6):
        service.now = NOW + step * HOUR
        await service.fire()
    first = await service.list_runs(people.alice, schedule_id, limit=3, count=True)
    rest = await service.list_runs(people.alice, schedule_id, limit=3, cursor=first.next_cursor)
    assert first.total == 5 and rest.next_cursor is None
    found = [*first.items, *rest.items]
    assert [run.scheduled_for for run in found] == [NOW + step * HOUR for step in (5, 4, 3, 2, 1)]
    assert {run.schedule_id for run in found} == {schedule_id} != {other_id}
    skipped = await service.list_runs(people.alice, schedule_id, states=["skipped"])
    assert len(skipped.items) == 4
