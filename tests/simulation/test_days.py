"""Up to 400 days of 50 schedules and three workers with outages: the runs are exactly those that the rules say.

The clock is ours and jumps from one thing that happens to the next; the database and all that fires are the real ones.
What is expected is worked out per schedule, from semantics 4 and nothing of `scheduler.schedules`: firings from the
calendar and the zone, then what becomes of each, from when a worker that is up next looks.

`SIMULATION_DAYS=400 pytest tests/simulation -s --thorough` goes the whole way, on both stacks.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, insert, select, update

from models import Run, Schedule, User
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.dispatch import release_blocked
from scheduler.schedules.fire import fire_schedules
from scheduler.schedules.manage import change_schedule
from scheduler.schedules.system import change_job
from scheduler.settings import Settings
from tests.factories import add_people

pytestmark = pytest.mark.heavy(on="mariadb")

SEED = 400
START = datetime(2025, 9, 1, tzinfo=UTC)
DAYS = int(os.environ.get("SIMULATION_DAYS", "100"))
END = START + timedelta(days=DAYS)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LATE = 60 * SECOND
FOREVER = datetime(2100, 1, 1, tzinfo=UTC)
ACTION = {"type": "create_task", "task": {"title": "Water the plants"}}

# -- schedules, with what their fields mean -------------------------------------------------------------------

MONDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = 0, 2, 3, 4, 5, 6


def on(*weekdays: int, months: tuple[int, ...] = (), nth: int = 0, last: bool = False) -> Callable[[date], bool]:
    """Dates on these weekdays, in these months, the nth or the last of the month."""

    def matches(day: date) -> bool:
        return (
            day.weekday() in weekdays
            and (not months or day.month in months)
            and (not nth or (day.day - 1) // 7 + 1 == nth)
            and (not last or (day + 7 * DAY).month != day.month)
        )

    return matches


def last_day(day: date) -> bool:
    return (day + DAY).month != day.month


def first_of_quarter(day: date) -> bool:
    return day.day == 1 and day.month % 3 == 1


def last_weekday(day: date) -> bool:
    return day.weekday() < SATURDAY and all(
        later.month != day.month or later.weekday() >= SATURDAY
        for later in (day + number * DAY for number in (1, 2, 3))
    )


@dataclass(frozen=True)
class Rule:
    """A cron and what it means."""

    cron: str
    timezone: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    on: Callable[[date], bool]

    @property
    def is_wild(self) -> bool:
        minute, hour, *_ = self.cron.split()
        return minute.startswith("*") or hour.startswith("*")


@dataclass(frozen=True)
class Plan:
    """A schedule as it begins, and how long its runs take."""

    rule: Rule
    overlap: str = "skip"
    missed: str = "once"
    hours: tuple[float, ...] = (0.01,)
    """A run takes one of these."""


def plan(
    cron: str,
    timezone: str,
    minutes: Any,
    hours: Any,
    dates: Callable[[date], bool],
    overlap: str = "skip",
    missed: str = "once",
    takes: tuple[float, ...] = (0.01,),
) -> Plan:
    return Plan(Rule(cron, timezone, tuple(minutes), tuple(hours), dates), overlap, missed, takes)


NEW_YORK, LORD_HOWE, BERLIN, HAVANA = "America/New_York", "Australia/Lord_Howe", "Europe/Berlin", "America/Havana"
ALL_HOURS = range(24)
LONG = (0.5, 30, 80)

PLANS = [
    # Around New York's changes, both ways; fixed times and wildcards.
    plan("30 2 * * SUN,MON", NEW_YORK, [30], [2], on(SUNDAY, MONDAY)),
    plan("30 2 * * SUN,MON", NEW_YORK, [30], [2], on(SUNDAY, MONDAY), "queue", "none", LONG),
    plan("30 2 * * SUN,MON", NEW_YORK, [30], [2], on(SUNDAY, MONDAY), "skip", "none", LONG),
    plan("0,30 2 * * SUN", NEW_YORK, [0, 30], [2], on(SUNDAY)),
    plan("0 2,3 * 3,11 SUN", NEW_YORK, [0], [2, 3], on(SUNDAY, months=(3, 11)), "queue"),
    plan("30 1 * * 0", NEW_YORK, [30], [1], on(SUNDAY), "queue", "none"),
    plan("*/30 1 * 3,11 SUN", NEW_YORK, [0, 30], [1], on(SUNDAY, months=(3, 11)), "skip", "none"),
    plan("0 * * 11 SUN#1", NEW_YORK, [0], ALL_HOURS, on(SUNDAY, months=(11,), nth=1), "queue", "once", (0.9, 1.1)),
    plan("0 * * 3 SUN#2", NEW_YORK, [0], ALL_HOURS, on(SUNDAY, months=(3,), nth=2), "skip", "once", (0.9, 1.1)),
    plan("0 2 * 3 7#2", "America/Denver", [0], [2], on(SUNDAY, months=(3,), nth=2)),
    # Half an hour, two hours, midnight, the last hour of a day.
    plan("10 2 * * SUN", LORD_HOWE, [10], [2], on(SUNDAY)),
    plan("*/15 1 * 4 SUN#1", LORD_HOWE, [0, 15, 30, 45], [1], on(SUNDAY, months=(4,), nth=1)),
    plan("*/10 2 * 4,10 SUN#1", LORD_HOWE, range(0, 60, 10), [2], on(SUNDAY, months=(4, 10), nth=1), "queue"),
    plan("30 1,2 * 3,10 SUN", "Antarctica/Troll", [30], [1, 2], on(SUNDAY, months=(3, 10))),
    plan("0 0 * * SUN", HAVANA, [0], [0], on(SUNDAY), "skip", "none"),
    plan("*/20 0 * 3,11 SUN", HAVANA, [0, 20, 40], [0], on(SUNDAY, months=(3, 11))),
    plan("30 23 * 3,10 SAT", "Asia/Beirut", [30], [23], on(SATURDAY, months=(3, 10))),
    plan("0 0 * 3,10 SUN", "Asia/Beirut", [0], [0], on(SUNDAY, months=(3, 10)), "queue", "none"),
    plan("0 0 * 4,10 FRI", "Africa/Cairo", [0], [0], on(FRIDAY, months=(4, 10))),
    plan("*/20 23,0 * 10 4L,5L", "Africa/Cairo", [0, 20, 40], [0, 23], on(THURSDAY, FRIDAY, months=(10,), last=True)),
    plan("30 2 * 3,10 SUN", BERLIN, [30], [2], on(SUNDAY, months=(3, 10))),
    plan("*/20 2 * 3,10 0L", BERLIN, [0, 20, 40], [2], on(SUNDAY, months=(3, 10), last=True), "skip", "none"),
    plan("30 1 * 3,10 sun", "Europe/London", [30], [1], on(SUNDAY, months=(3, 10))),
    plan("0 0 * 3,10 SUN", "Atlantic/Azores", [0], [0], on(SUNDAY, months=(3, 10))),
    plan("30 2 * 2,3 SUN", "Africa/Casablanca", [30], [2], on(SUNDAY, months=(2, 3))),
    plan("0 0 * 9,4 SUN", "America/Santiago", [0], [0], on(SUNDAY, months=(4, 9))),
    plan("30 2 * 4,9 SUN", "Pacific/Auckland", [30], [2], on(SUNDAY, months=(4, 9)), "queue"),
    plan("45 2 * 4,9 SUN", "Pacific/Chatham", [45], [2], on(SUNDAY, months=(4, 9))),
    plan("0 2 * 4,10 SUN", "Australia/Sydney", [0], [2], on(SUNDAY, months=(4, 10))),
    plan("30 2 * 4,10 SUN", "Australia/Adelaide", [30], [2], on(SUNDAY, months=(4, 10)), "skip", "none"),
    plan("0 22 * 3,10 SAT", "America/Nuuk", [0], [22], on(SATURDAY, months=(3, 10))),
    plan("0 2 * 10,3 SAT", "Asia/Gaza", [0], [2], on(SATURDAY, months=(3, 10))),
    # The calendar: last days, weekdays, one or the other, both.
    plan("59 23 L * *", "Pacific/Pago_Pago", [59], [23], last_day),
    plan("0 9 LW * *", "Asia/Tokyo", [0], [9], last_weekday),
    plan("0 18 1,15 * *", "Asia/Kolkata", [0], [18], lambda day: day.day in (1, 15), "queue", "none"),
    plan("0 12 13 * FRI", "America/Los_Angeles", [0], [12], lambda day: day.day == 13 or day.weekday() == FRIDAY),
    plan("0 12 */2 * FRI", "America/Los_Angeles", [0], [12], lambda day: day.day % 2 == 1 and day.weekday() == FRIDAY),
    plan("0 12 13 * */5", "UTC", [0], [12], lambda day: day.day == 13 and day.weekday() in (SUNDAY, FRIDAY)),
    plan("5 4 * * MON#1,wed#2", "UTC", [5], [4], lambda day: on(MONDAY, nth=1)(day) or on(WEDNESDAY, nth=2)(day)),
    plan("0 4 31 12 *", "Pacific/Kiritimati", [0], [4], lambda day: (day.month, day.day) == (12, 31)),
    plan("0 0 29 2 *", "UTC", [0], [0], lambda day: (day.month, day.day) == (2, 29)),
    plan("0 9 * * MON#1", "Pacific/Apia", [0], [9], on(MONDAY, nth=1)),
    plan("30 8 * * SUN,MON", BERLIN, [30], [8], on(SUNDAY, MONDAY), "skip", "once", LONG),
    plan("15 13 * * SUN,MON", "Asia/Kathmandu", [15], [13], on(SUNDAY, MONDAY), "queue", "once", LONG),
    # Dense for a while, with runs that take longer than what lies between them.
    plan("*/5 12 1 */3 *", "UTC", range(0, 60, 5), [12], first_of_quarter, "skip", "once", (0.02, 0.2, 1)),
    plan("*/5 12 1 */3 *", "UTC", range(0, 60, 5), [12], first_of_quarter, "queue", "none", (0.02, 0.2, 1)),
    plan("*/5 12 1 */3 *", "UTC", range(0, 60, 5), [12], first_of_quarter, "skip", "none"),
    plan(
        "0-19 3 10 2,5,8 *",
        "UTC",
        range(20),
        [3],
        lambda day: day.day == 10 and day.month in (2, 5, 8),
        "skip",
        "once",
        (0.01, 0.2),
    ),
    plan(
        "0 */6 8-21 1 *",
        "UTC",
        [0],
        [0, 6, 12, 18],
        lambda day: day.month == 1 and 8 <= day.day <= 21,
        "skip",
        "once",
        (1, 5, 10, 20),
    ),
    plan(
        "0 */6 8-21 1 *",
        "UTC",
        [0],
        [0, 6, 12, 18],
        lambda day: day.month == 1 and 8 <= day.day <= 21,
        "queue",
        "none",
        (1, 5, 10),
    ),
]
assert len(PLANS) == 50

# -- what happens to them -------------------------------------------------------------------------------------


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Change:
    """A person changes a schedule."""

    at: datetime
    number: int
    values: dict[str, Any] = field(compare=False)
    rule: Rule | None = field(compare=False, default=None)


def _changes() -> list[Change]:
    daily = Rule("30 2 * * SUN,MON", "Asia/Tehran", (30,), (2,), on(SUNDAY, MONDAY))
    elapsed = Rule("*/30 2 * 3 0", NEW_YORK, (0, 30), (2,), on(SUNDAY, months=(3,)))
    lisbon = Rule("0 1 * * SUN", "Europe/Lisbon", (0,), (1,), on(SUNDAY))
    hourly = Rule("0 * 20 5 *", "Asia/Kathmandu", (0,), tuple(ALL_HOURS), lambda day: (day.month, day.day) == (5, 20))

    def to(rule: Rule) -> dict[str, Any]:
        return {"cron": rule.cron, "timezone": rule.timezone}

    return sorted(
        [
            # Paused over both changes of the clock, resumed.
            Change(at("2025-10-30 12:00"), 0, {"enabled": False}),
            Change(at("2025-11-03 12:00"), 0, {"enabled": True}),
            # Paused at the very second of a firing.
            Change(at("2025-12-06 07:30"), 1, {"enabled": False}),
            Change(at("2026-01-10 07:29:59"), 1, {"enabled": True}),
            Change(at("2026-03-01 00:00"), 2, {"overlap": "queue"}),
            Change(at("2026-04-20 00:00"), 2, {"overlap": "skip", "missed": "once"}),
            Change(at("2026-02-01 00:00"), 3, to(elapsed), elapsed),
            Change(at("2026-04-01 00:00"), 3, to(daily), daily),
            Change(at("2026-01-15 03:00"), 10, to(lisbon), lisbon),
            Change(at("2026-05-19 12:00"), 14, to(hourly), hourly),
            Change(at("2026-05-20 05:15"), 14, {"enabled": False}),
            Change(at("2026-05-20 09:15"), 14, {"enabled": True}),
            # What changes no time.
            Change(at("2026-02-10 03:05"), 47, {"name": "Minutes"}),
            Change(at("2026-02-10 03:10"), 47, {"overlap": "queue"}),
            Change(at("2026-01-12 00:00"), 49, {"missed": "once", "overlap": "skip"}),
        ]
    )


CHANGES = _changes()
DEACTIVATED = (at("2026-05-01 00:00:30"), at("2026-05-31 00:00:30"))
"""While this lasts, every fifth schedule is of somebody who has no active account."""
DISABLED = (at("2026-06-12 00:00:30"), at("2026-06-15 00:00:30"))
"""While this lasts, an operator has disabled the job `run_schedule`."""

PHASES = (0.0, 0.41, 0.87)
"""Each worker looks so many seconds after each full second. (At a full second itself two minutes can be on time.)"""
Outage = tuple[datetime, datetime]


def _outages(around: list[datetime]) -> list[list[Outage]]:
    """When each worker is down: by itself, two at once, all three; for seconds, hours and days."""
    rng = random.Random(SEED)
    down: list[list[Outage]] = [[], [], []]

    def add(workers: list[int], begin: datetime, length: timedelta) -> None:
        for worker in workers:
            down[worker].append((begin, begin + length))

    for count, how_many in ((1, 40), (2, 30), (3, 12)):
        for _ in range(how_many):
            begin = START + timedelta(seconds=rng.uniform(0, DAYS * 86400))
            length = timedelta(hours=rng.choice([0.02, 0.5, 3, 12, 40, 90])) * rng.uniform(0.5, 1.5)
            add(rng.sample(range(3), count), begin, length)
    # Short ones of all three just when something is to fire: for those that are barely on time, or barely not.
    for firing in rng.sample(around, 140 * DAYS // 400):
        begin = firing - timedelta(seconds=rng.uniform(0, 90))
        end = firing + timedelta(seconds=rng.choice([5, 40, 59.5, 59.95, 60.2, 60.6, 90, 200]))
        add([0, 1, 2], begin, end - begin)
    # And two firings in one look, both on time: a minute apart, and a worker back at the very second of the later one.
    dense = [firing for firing in around if firing.day == 10 and firing.hour == 3]
    for firing in rng.sample(dense, min(6, len(dense))):
        add([0, 1, 2], firing - 5 * SECOND, 64.95 * SECOND)
    return [sorted(each) for each in down]


def key(row: Row) -> tuple[int, datetime]:
    return row.number, row.scheduled_for


def duration(plan_: Plan, number: int, scheduled_for: datetime) -> timedelta:
    """How long the run of a firing takes."""
    return timedelta(hours=random.Random(f"{SEED} {number} {scheduled_for}").choice(plan_.hours))


# -- what the rules say ---------------------------------------------------------------------------------------


@cache
def firings(rule: Rule) -> list[datetime]:
    """Every firing of all days and some: each time of each date of the calendar, by what the zone does with it."""
    here = ZoneInfo(rule.timezone)
    found: set[datetime] = set()
    day = START.date() - 3 * DAY
    while day < END.date() + 60 * DAY:
        for hour, minute in ((h, m) for h in rule.hours for m in rule.minutes) if rule.on(day) else ():
            wall = datetime(day.year, day.month, day.day, hour, minute)
            both = [wall.replace(tzinfo=here, fold=fold).astimezone(UTC) for fold in (0, 1)]
            shown = [each for each in both if each.astimezone(here).replace(tzinfo=None) == wall]
            if rule.is_wild:
                found.update(shown)
            elif shown:
                found.add(min(shown))
            else:  # in a gap: the first minute behind it
                later = wall
                while later.replace(tzinfo=here).astimezone(UTC).astimezone(here).replace(tzinfo=None) != later:
                    later += MINUTE
                found.add(later.replace(tzinfo=here).astimezone(UTC))
        day += DAY
    return sorted(found)


def next_firing(rule: Rule, after: datetime) -> datetime:
    return next((each for each in firings(rule) if each > after), FOREVER)


class Looks:
    """When workers that are up look."""

    def __init__(self, outages: list[list[Outage]]) -> None:
        self._outages = outages

    def first(self, worker: int, instant: datetime) -> datetime:
        """The worker's first look at or after `instant`."""
        phase = timedelta(seconds=PHASES[worker])
        whole = (instant - phase).replace(microsecond=0) - SECOND
        look = next(
            whole + number * SECOND + phase for number in range(4) if whole + number * SECOND + phase >= instant
        )
        for begin, end in self._outages[worker]:
            if begin <= look < end:
                return self.first(worker, end)
        return look

    def first_of_all(self, instant: datetime) -> datetime:
        return min(self.first(worker, instant) for worker in range(3))


@dataclass(frozen=True, order=True)
class Row:
    """What becomes of a firing."""

    number: int
    scheduled_for: datetime
    state: str
    reason: str | None = None
    missed: int | None = None
    behind: datetime | None = None
    """For when the run in the way was meant."""
    started_at: datetime | None = None


def expected(number: int, looks: Looks) -> Iterator[Row]:
    """What becomes of one schedule's firings."""
    plan_ = PLANS[number]
    rule, overlap, missed, enabled = plan_.rule, plan_.overlap, plan_.missed, True
    upcoming = next_firing(rule, START)
    changes = [change for change in CHANGES if change.number == number]
    runs: list[tuple[datetime, datetime]] = []  # (scheduled for, end), in the order in which they were made
    while True:
        look = looks.first_of_all(upcoming) if enabled and upcoming < FOREVER else FOREVER
        change = changes[0] if changes else None
        if change is not None and change.at < min(look, END):
            changes.pop(0)
            overlap = change.values.get("overlap", overlap)
            missed = change.values.get("missed", missed)
            enabled = change.values.get("enabled", enabled)
            rule = change.rule or rule
            if change.rule or "enabled" in change.values:
                upcoming = next_firing(rule, change.at)
            continue
        if look >= END:
            return
        due = [each for each in firings(rule) if upcoming <= each <= look]
        upcoming = next_firing(rule, look)
        if number % 5 == 0 and DEACTIVATED[0] <= look < DEACTIVATED[1]:
            continue
        late = [each for each in due if look - each > LATE]
        if late and missed == "once":
            due = due[-1:]
        elif late:
            yield Row(number, late[-1], "skipped", "missed", len(late))
            due = due[len(late) :]
        for firing in due:
            unfinished = [run for run in runs if run[1] > look]
            if DISABLED[0] <= look < DISABLED[1]:
                yield Row(number, firing, "skipped", "job_disabled")
            elif unfinished and overlap == "skip":
                yield Row(number, firing, "skipped", "overlap", behind=unfinished[0][0])
            else:
                started_at = max([look, *(end for _, end in unfinished)])
                runs.append((firing, started_at + duration(plan_, number, firing)))
                yield Row(number, firing, "succeeded", started_at=started_at)


# -- the service, carried through it --------------------------------------------------------------------------


_RUN = select(Run.id, Run.schedule_id, Run.scheduled_for, Run.state)


class Simulation:
    """The schedules in a database, the workers that look at them, and runs that take their time."""

    def __init__(self, database: Database, settings: Settings, looks: Looks, people: list[Actor]) -> None:
        self.database, self.settings, self.looks = database, settings, looks
        self.owners = people
        self.ids: list[UUID] = [new_id() for _ in PLANS]
        self.numbers = {schedule_id: number for number, schedule_id in enumerate(self.ids)}
        self.started: dict[UUID, datetime] = {}
        self.running: list[tuple[datetime, UUID, int]] = []  # a heap of (end, run, number)
        self.queues: set[int] = set()
        self.calls = Counter[str]()

    def owner(self, number: int) -> Actor:
        return self.owners[number % 5]

    async def begin(self) -> None:
        rows = [
            {
                "id": self.ids[number],
                "user_id": self.owner(number).user_id,
                "job": "run_schedule",
                "name": f"Schedule {number}",
                "cron": each.rule.cron,
                "timezone": each.rule.timezone,
                "action": ACTION,
                "enabled": True,
                "overlap": each.overlap,
                "missed": each.missed,
                "next_run_at": None,
                "created_at": START,
                "updated_at": START,
            }
            for number, each in enumerate(PLANS)
        ]
        async with self.database.write() as session:
            await session.execute(insert(Schedule.__table__), [row | {"enabled": False} for row in rows])
            for number in range(len(PLANS)):
                await self._change(session, number, {"enabled": True}, START)

    async def carry(self) -> None:
        """Through all days: whatever comes next, until nothing does."""
        others: list[tuple[datetime, Callable[[], Any]]] = [
            *((each.at, lambda each=each: self.change(each)) for each in CHANGES),
            *((DEACTIVATED[turn], lambda turn=turn: self.switch_person(turn == 1)) for turn in (0, 1)),
            *((DISABLED[turn], lambda turn=turn: self.switch_job(turn == 1, DISABLED[turn])) for turn in (0, 1)),
        ]
        others.sort(key=lambda each: each[0])
        due = await self.due_at()
        while True:
            look = END if due is None else min(END, self.looks.first_of_all(due))
            if others and others[0][0] < look:
                instant, act = others.pop(0)
                await self.end_runs(instant)
                await act()
                due = await self.due_at()
            elif look < END:
                await self.end_runs(look)
                due = await self.look(due, look, others[0][0] if others else END)
            else:
                break
        await self.end_runs(FOREVER)

    async def due_at(self) -> datetime | None:
        async with self.database.read() as session:
            found: datetime | None = (await session.execute(select(func.min(Schedule.next_run_at)))).scalar_one()
            return found

    async def look(self, due: datetime | None, first: datetime, until: datetime) -> datetime | None:
        """Each worker that is up looks within this second, and before `until`: now and then all of them at one instant.

        Returns when something is due next.
        """
        assert due is not None
        times = sorted(self.looks.first(worker, due) for worker in range(3))
        times = [time for time in times if time == first or time < min(until, first + SECOND)]
        self.calls["looks"] += 1
        if self.calls["looks"] % 7 == 0:
            await self._fire(first, len(times))
        else:
            for time in times:
                await self.end_runs(time)
                await self._fire(time, 1)
        return await self.due_at()

    async def _fire(self, instant: datetime, workers: int) -> None:
        """What is queued begins at once; what is blocked, when it is let go."""
        made = sum(await asyncio.gather(*(fire_schedules(self.database, now=instant) for _ in range(workers))))
        self.calls["runs"] += made
        if made == 0:
            return
        async with self.database.read() as session:
            found = (await session.execute(_RUN.where(Run.queued_at == instant))).all()
        for run in found:
            if run.state == "queued":
                self._began(run, instant)
            elif run.state == "blocked":
                self.queues.add(self.numbers[run.schedule_id])

    def _began(self, run: Any, instant: datetime) -> None:
        number = self.numbers[run.schedule_id]
        assert run.id not in self.started
        self.started[run.id] = instant
        end = instant + duration(PLANS[number], number, run.scheduled_for)
        heapq.heappush(self.running, (end, run.id, number))

    async def end_runs(self, until: datetime) -> None:
        """End what has taken its time, in the order in which it ends, and let go what waited for it."""
        ended: list[UUID] = []
        while self.running and self.running[0][0] <= until:
            end, run_id, number = heapq.heappop(self.running)
            ended.append(run_id)
            if number in self.queues:
                await self._end(ended)
                ended = []
                await self._let_go(number, end)
        if ended:
            await self._end(ended)

    async def _end(self, run_ids: list[UUID]) -> None:
        async with self.database.write() as session:
            await session.execute(
                update(Run.__table__).where(Run.id.in_(run_ids)).values(state="succeeded", finished_at=END)
            )

    async def _let_go(self, number: int, instant: datetime) -> None:
        of_schedule = _RUN.where(Run.schedule_id == self.ids[number], Run.state.in_(["queued", "blocked"]))
        async with self.database.write() as session:
            await release_blocked(session)
            found = (await session.execute(of_schedule)).all()
        released = [run for run in found if run.state == "queued" and run.id not in self.started]
        assert len(released) == bool(found), "one is let go, whenever there is one"
        for run in released:
            self._began(run, instant)
        if not any(run.state == "blocked" for run in found):
            self.queues.discard(number)

    async def change(self, change: Change) -> None:
        async with self.database.write() as session:
            await self._change(session, change.number, change.values, change.at)

    async def _change(self, session: Any, number: int, values: dict[str, Any], now: datetime) -> None:
        await change_schedule(
            session,
            actor=self.owner(number),
            schedule_id=self.ids[number],
            changes=values,
            settings=self.settings,
            now=now,
        )

    async def switch_person(self, active: bool) -> None:
        status = "active" if active else "deactivated"
        async with self.database.write() as session:
            await session.execute(update(User).where(User.id == self.owners[0].user_id).values(status=status))

    async def switch_job(self, enabled: bool, now: datetime) -> None:
        async with self.database.write() as session:
            await change_job(session, name="run_schedule", changes={"enabled": enabled}, now=now)

    async def found(self) -> list[Row]:
        """What became of each firing."""
        async with self.database.read() as session:
            runs = (await session.execute(select(Run.__table__))).all()
        scheduled_for = {str(run.id): run.scheduled_for for run in runs}
        return [
            Row(
                self.numbers[run.schedule_id],
                run.scheduled_for,
                run.state,
                (run.result or {}).get("reason"),
                (run.result or {}).get("missed"),
                scheduled_for.get(str((run.result or {}).get("run_id"))),
                self.started.get(run.id),
            )
            for run in runs
        ]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_day_by_day(
    database: Database, settings: Settings, capsys: pytest.CaptureFixture[str], stack: Any
) -> None:
    around = sorted({each for plan_ in PLANS for each in firings(plan_.rule) if START < each < END})
    outages = _outages(around)
    looks = Looks(outages)
    simulation = Simulation(database, settings, looks, list(await add_people(database)))
    await simulation.begin()
    began = asyncio.get_running_loop().time()
    await simulation.carry()
    took_s = asyncio.get_running_loop().time() - began
    found = await simulation.found()
    wanted = [row for number in range(len(PLANS)) for row in expected(number, looks)]
    differing = [
        f"{PLANS[row.number].rule.cron} {PLANS[row.number].rule.timezone}: {row}"
        for row in sorted(set(found) ^ set(wanted), key=key)
    ]
    assert not differing, differing[:10]
    assert sorted(found, key=key) == sorted(wanted, key=key)
    assert len({key(row) for row in found}) == len(found)  # each firing has one row
    counts = Counter(row.reason or row.state for row in found)
    left_out = sum(row.missed or 0 for row in found)
    waited = sum(1 for row in found if row.started_at is not None and row.started_at - row.scheduled_for > HOUR)
    all_down = [looks.first_of_all(firing) - firing > LATE for firing in around]
    # It happened, all of it.
    share = DAYS / 400
    assert counts["succeeded"] > 1000 * share and counts["overlap"] > 50 * share and counts["missed"] > 20 * share
    assert waited > 50 * share and sum(all_down) > 50 * share and (DAYS < 400 or counts["job_disabled"] > 3)
    with capsys.disabled():
        print(
            f"\n{DAYS} days on {stack.name}: {len(PLANS)} schedules, {len(around)} instants at which something fires,"
            f" {sum(map(len, outages))} outages of 3 workers ({sum(all_down)} firing instants nobody saw in time);"
            f" {len(found)} runs: {counts['succeeded']} performed ({waited} of them late by more than an hour),"
            f" {counts['overlap']} skipped for overlap, {counts['missed']} for {left_out} missed,"
            f" {counts['job_disabled']} disabled; {simulation.calls['looks']} seconds looked at in {took_s:.1f} s"
        )
