"""Whether a long history costs anything: lists, filters and the claim among 10,000 or 10,000,000 finished runs, and how
fast the cleanup deletes while somebody else writes."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

from sqlalchemy import event, insert
from sqlalchemy.ext.asyncio import AsyncSession

from bench.measure import BenchError, median
from bench.seed import identifier
from bench.surroundings import Surroundings
from models import LogRecord, Run
from models.run import RunState, RunTrigger
from scheduler.cleanup.clean import RETENTION, clean_up
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.paging import encode_cursor
from scheduler.runs.dispatch import dispatch, look
from scheduler.runs.enqueue import NewRun, enqueue_many
from scheduler.runs.jobs import SCHEDULES_QUEUE, JobName
from scheduler.runs.read import last_runs, list_runs
from scheduler.runs.running import RunningJob
from scheduler.schema import upgrade
from tests.servers import MariaDBServer

START = datetime(2026, 6, 1, tzinfo=UTC)
SPAN = timedelta(days=29)
"""The history's: at `PRESENT` none of it has expired."""
PRESENT = START + RETENTION
EXPIRED_SPAN = timedelta(days=3)
FIRST = 10_000_001
"""The number of the history's first run: ids before it are for the expired."""
CLAIMED = 1000
ONE_OWNER, MANY_OWNERS = f"claim of {CLAIMED:,}", f"claim of {CLAIMED:,} of twice as many, 20 owners"
PAGE = 50
FEW = 25
"""The page of a filter that few of the smaller history's runs pass."""
DEEP_PAGE, DEEP_LIMIT = 1000, 10
"""So that the smaller history has a thousandth page as well."""
WRITTEN_A_SECOND = 1000
AT_ONCE = 50
"""Runs, and as many log records, in one transaction of the writer."""
JOBS_OF_20 = ["run_schedule"] * 3 + ["send_reminders"] * 6 + ["send_emails"] * 6 + ["reap"] * 4 + ["cleanup"]
JOB = "ELT(1 + seq MOD 20, " + ", ".join(f"'{name}'" for name in JOBS_OF_20) + ")"


# -- filling -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """A database with so many runs in it."""

    mariadb: MariaDBServer
    name: str
    rows: int

    @property
    def url(self) -> str:
        """As `Settings.database_url` has it."""
        return self.mariadb.url(self.name, "mysql+aiomysql")

    @property
    def people(self) -> int:
        """How many people have schedules: each caused 75 runs or more."""
        return max(20, self.rows // 10_000)

    def one(self, query: str) -> tuple[Any, ...]:
        """The one row that this finds."""
        with self.mariadb.connect(self.name) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
        assert row is not None
        return tuple(row)

    def cursor(self, number: int) -> str:
        """The cursor of a page that begins behind the run with this number."""
        run_id, queued_at = self.one(f"SELECT id, queued_at FROM run WHERE id = {identifier(str(number))}")
        return encode_cursor(queued_at.replace(tzinfo=UTC), UUID(bytes=run_id))


def fill(on: Surroundings, name: str, *, rows: int) -> History:
    """A database of that name with `rows` finished runs over 29 days, oldest first.

    Of a hundred, 15 are of a person's schedule and the rest the service's own; one failed; one was asked for by hand.
    """
    on.mariadb.create_database(name)
    history = History(on.mariadb, name, rows)
    upgrade(history.url)
    with on.mariadb.connect(name) as connection, connection.cursor() as cursor:
        # One statement into an empty table, unchecked: InnoDB sorts each index and writes it page by page.
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0, UNIQUE_CHECKS = 0")
        own = identifier("seq")
        cursor.execute(
            "INSERT INTO schedule (id, user_id, job, name, cron, timezone, enabled, overlap, missed, created_at, "
            f"updated_at) SELECT {own}, {own}, 'run_schedule', 'mine', '0 9 * * *', 'UTC', 1, 'skip', 'once', "
            f"UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM seq_1_to_{history.people}"
        )
        cursor.execute(_runs(FIRST, rows, people=history.people, start=START, span=SPAN))
        cursor.execute("ANALYZE TABLE run")
        cursor.fetchall()
    return history


def add_expired(history: History, *, rows: int) -> None:
    """So many more runs, that have expired, each with a log record of that time."""
    at = _spread(1, rows, START - EXPIRED_SPAN, EXPIRED_SPAN)
    with history.mariadb.connect(history.name) as connection, connection.cursor() as cursor:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0, UNIQUE_CHECKS = 0")
        cursor.execute(_runs(1, rows, people=history.people, start=START - EXPIRED_SPAN, span=EXPIRED_SPAN))
        cursor.execute(
            "INSERT INTO log_record (id, at, level, event, logger, run_id, job, data) "
            f"SELECT {identifier('seq')}, {at}, 'info', 'run.succeeded', 'runs', {identifier('seq')}, {JOB}, "
            f'\'{{"duration_ms":30,"attempt":1}}\' FROM seq_1_to_{rows}'
        )
        cursor.execute("ANALYZE TABLE run, log_record")
        cursor.fetchall()


def _runs(first: int, rows: int, *, people: int, start: datetime, span: timedelta) -> str:
    """The statement that makes `rows` runs with numbers from `first` on, spread evenly over `span`."""
    last = first + rows - 1
    at = _spread(first, last, start, span)
    # The divisors have no factor in common, so that each filter is independent of the others.
    is_personal, failed = "seq MOD 20 < 3", "seq MOD 103 = 0"
    person = f"IF({is_personal}, {identifier(f'1 + seq DIV 20 MOD {people}')}, NULL)"
    return (
        "INSERT INTO run (id, job, `trigger`, state, queue, priority, owner_id, arguments, schedule_id, scheduled_for, "
        "attempt, max_attempts, seq, queued_at, started_at, finished_at, duration_ms, worker, progress_done, "
        f"progress_total, result, error) SELECT {identifier('seq')}, {JOB}, "
        f"IF(seq MOD 101, 'cron', 'manual'), IF({failed}, 'failed', 'succeeded'), 'default', 1, {person}, "
        f'IF({is_personal}, \'{{"type":"create_task"}}\', NULL), {person}, IF({is_personal}, {at}, NULL), 1, 1, 2, '
        f"{at}, {at} + INTERVAL 20000 MICROSECOND, {at} + INTERVAL 50000 MICROSECOND, 30, 'host.example:1234:ab12', "
        f'0, 0, IF({failed}, NULL, \'{{"claimed":3,"emails":3}}\'), '
        f'IF({failed}, \'{{"type":"OSError","message":"refused","traceback":null}}\', NULL) '
        f"FROM seq_{first}_to_{last}"
    )


def _spread(first: int, last: int, start: datetime, span: timedelta) -> str:
    """The SQL for the instant of the row with the number `seq`."""
    step = span // (last - first + 1) // timedelta(microseconds=1)
    return f"'{start:%Y-%m-%d %H:%M:%S}' + INTERVAL {step} * (seq - {first}) MICROSECOND"


# -- reading and claiming ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """Something that is read, and how many rows must come of it."""

    name: str
    ask: Callable[[AsyncSession], Awaitable[int]]
    rows: int


def _listing(name: str, *, limit: int = PAGE, **filters: Any) -> Question:
    async def ask(session: AsyncSession) -> int:
        return len((await list_runs(session, limit=limit, **filters)).items)

    return Question(name, ask, limit)


def _questions(history: History) -> list[Question]:
    middle = START + SPAN / 2
    deep = history.cursor(FIRST + history.rows - (DEEP_PAGE - 1) * DEEP_LIMIT)
    deepest = history.cursor(FIRST + history.rows // 5)
    somebody = UUID(bytes=history.one(f"SELECT {identifier(str(history.people // 2))}")[0])

    async def newest_of_jobs(session: AsyncSession) -> int:
        return len(await last_runs(session, jobs=list(JobName)))

    async def nothing_to_do(session: AsyncSession) -> int:
        return int(any(await look(session, now=PRESENT)))

    return [
        _listing("first page"),
        _listing(f"page {DEEP_PAGE:,}, of {DEEP_LIMIT}", limit=DEEP_LIMIT, cursor=deep),
        _listing("page at four fifths", cursor=deepest),
        _listing("job", jobs=["send_emails"]),
        _listing("state: failed", states=["failed"]),
        _listing("states: failed, lost, cancelled", states=["failed", "lost", "cancelled"]),
        _listing("trigger: manual", triggers=["manual"]),
        _listing("triggers: manual, cron", triggers=["manual", "cron"]),
        _listing("since and until", since=middle, until=middle + timedelta(days=1)),
        _listing("until", until=middle),
        _listing("job and state: succeeded", jobs=["send_emails"], states=["succeeded"]),
        _listing("job and state: failed", limit=FEW, jobs=["send_emails"], states=["failed"]),
        _listing("job, state, since and until", jobs=["reap"], states=["succeeded"], since=middle, until=PRESENT),
        _listing("a person's", owner_id=somebody),
        _listing("a schedule's", schedule_id=somebody),
        Question("last run of each job", newest_of_jobs, len(JobName)),
        Question("look for work, finding none", nothing_to_do, 0),
    ]


def measure(histories: Sequence[History], *, rounds: int) -> dict[str, list[float]]:
    """Seconds for each question and claim, for each history: medians, after a round that doesn't count.

    The histories take turns, so that whatever else the machine does falls on all of them.
    """
    return asyncio.run(_measure(histories, rounds))


async def _measure(histories: Sequence[History], rounds: int) -> dict[str, list[float]]:
    databases = [Database(history.url) for history in histories]
    questions = [_questions(history) for history in histories]
    found: dict[str, list[list[float]]] = {}

    def note(name: str, place: int, seconds: float) -> None:
        found.setdefault(name, [[] for _ in histories])[place].append(seconds)

    try:
        for number in range(rounds + 1):
            # In turns: now the one is first, now the other.
            places = list(range(len(databases)))[:: 1 if number % 2 else -1]
            for alike in zip(*questions, strict=True):
                for place in places:
                    note(alike[place].name, place, await _answer(databases[place], alike[place]))
            for owners, name in ((1, ONE_OWNER), (20, MANY_OWNERS)):
                for place in places:
                    note(name, place, await _claim(databases[place], owners=owners))
    finally:
        for database in databases:
            await database.dispose()
    return {name: [median(seconds[1:]) for seconds in each] for name, each in found.items()}


async def _answer(database: Database, question: Question) -> float:
    async with database.read() as session:
        began = time.perf_counter()
        rows = await question.ask(session)
        seconds = time.perf_counter() - began
    if rows != question.rows:
        raise BenchError(f"{question.name}: {rows} rows came, of {question.rows}")
    return seconds


async def _claim(database: Database, *, owners: int) -> float:
    """Seconds for one claim of CLAIMED runs; with several owners there are twice as many, so that they must share."""
    ids = [new_id() for _ in range(owners)]
    waiting = CLAIMED * min(owners, 2)
    runs = [
        NewRun(job=JobName.RUN_SCHEDULE, trigger=RunTrigger.MANUAL, owner_id=ids[number % owners])
        for number in range(waiting)
    ]
    async with database.write() as session:
        await enqueue_many(session, runs, now=PRESENT)
    began = time.perf_counter()
    async with database.write() as session:
        claimed = len((await dispatch(session, queue=SCHEDULES_QUEUE, worker="bench", room=CLAIMED)).runs)
    seconds = time.perf_counter() - began
    async with database.write() as session:
        await session.execute(Run.__table__.delete().where(Run.state.in_(["queued", "dispatched"])))
    if claimed != CLAIMED:
        raise BenchError(f"{claimed} runs were claimed of {waiting} ({owners} owners)")
    return seconds


# -- cleaning up ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cleaned:
    """A cleanup of so many runs, and of as many log records, while a writer inserted 1,000 of each a second."""

    runs: int
    seconds: float
    locks: list[float]
    """Seconds from the first DELETE of each batch until it was committed."""
    inserts: list[float]
    """Seconds of each transaction of the writer, AT_ONCE runs and records each."""

    @property
    def per_second(self) -> float:
        return self.runs / self.seconds

    @property
    def written_per_second(self) -> float:
        return len(self.inserts) * AT_ONCE / self.seconds


def clean(history: History) -> Cleaned:
    """Clean up all that has expired, while a process of its own inserts 1,000 runs and records a second."""
    context = multiprocessing.get_context("spawn")
    writer_end, our_end = context.Pipe()
    writer = context.Process(target=_write, args=(history.url, writer_end), daemon=True)
    writer.start()
    writer_end.close()
    try:
        return asyncio.run(_clean(history, our_end))
    except EOFError:
        raise BenchError("the writer ended by itself") from None
    finally:
        our_end.close()  # which ends the writer, too
        writer.join(10)
        writer.kill()


async def _clean(history: History, writer: Connection) -> Cleaned:
    database = Database(history.url)
    run = RunningJob(id=new_id(), job=JobName.CLEANUP, trigger="manual", attempt=1, started_at=now(), worker="bench")
    try:
        if not await asyncio.to_thread(writer.poll, 30):
            raise BenchError("the writer did not begin")
        writer.recv()
        await asyncio.sleep(1)  # it comes into its stride
        with _lock_times(database) as locks:
            writer.send(None)
            began = time.perf_counter()
            counts = await clean_up(database, run=run, now=PRESENT)
            seconds = time.perf_counter() - began
            writer.send(None)
        inserts = await asyncio.to_thread(writer.recv)
    finally:
        await database.dispose()
    if counts["runs"] != counts["log_records"] or counts["kinds_left"]:
        raise BenchError(f"the cleanup did not do its work: {counts}")
    return Cleaned(counts["runs"], seconds, locks, inserts)


@contextmanager
def _lock_times(database: Database) -> Iterator[list[float]]:
    """How long each transaction that deleted something held its locks, in seconds."""
    times: list[float] = []
    began: dict[Any, float] = {}
    engine = database.engine.sync_engine

    def begin(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE"):
            began.setdefault(connection.connection.dbapi_connection, time.perf_counter())

    def end(connection: Any, _record: Any) -> None:  # it is committed, and goes back to the pool
        if connection in began:
            times.append(time.perf_counter() - began.pop(connection))

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "checkin", end)
    try:
        yield times
    finally:
        event.remove(engine, "before_cursor_execute", begin)
        event.remove(engine, "checkin", end)


def _write(url: str, reader: Connection) -> None:
    """The writer's process: says that it is there, then inserts; from one message to the next it keeps times."""
    with suppress(EOFError, BrokenPipeError):
        asyncio.run(_write_steadily(url, reader))


async def _write_steadily(url: str, reader: Connection) -> None:
    database = Database(url)
    times: list[float] | None = None
    person = new_id()

    async def insert_some(session: AsyncSession) -> None:
        at = now()
        ids = [new_id() for _ in range(AT_ONCE)]
        await session.execute(insert(Run.__table__), [_finished_run(each, person, at) for each in ids])
        await session.execute(insert(LogRecord.__table__), [_record(each, at) for each in ids])

    try:
        await database.retry_write(insert_some)
        reader.send(None)
        due = time.perf_counter()
        while True:
            began = time.perf_counter()
            await database.retry_write(insert_some)
            if times is not None:
                times.append(time.perf_counter() - began)
            due += AT_ONCE / WRITTEN_A_SECOND
            if reader.poll():
                reader.recv()
                if times is not None:
                    reader.send(times)
                    return
                times, due = [], time.perf_counter()
            await asyncio.sleep(max(0, due - time.perf_counter()))
    finally:
        await database.dispose()


def _finished_run(run_id: UUID, person: UUID, at: datetime) -> dict[str, Any]:
    return {
        "id": run_id,
        "job": JobName.RUN_SCHEDULE.value,
        "trigger": RunTrigger.MANUAL.value,
        "state": RunState.SUCCEEDED.value,
        "queue": SCHEDULES_QUEUE,
        "priority": 1,
        "owner_id": person,
        "arguments": {"type": "create_task"},
        "attempt": 1,
        "max_attempts": 3,
        "seq": 2,
        "queued_at": at,
        "started_at": at,
        "finished_at": at,
        "duration_ms": 12,
        "worker": "host.example:1234:ab12",
        "progress_done": 0,
        "progress_total": 0,
        "result": {"task_id": str(run_id)},
    }


def _record(run_id: UUID, at: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "at": at,
        "level": "info",
        "event": "run.succeeded",
        "logger": "runs",
        "run_id": run_id,
        "job": JobName.RUN_SCHEDULE.value,
        "data": {"attempt": 1, "duration_ms": 12, "trigger": "manual"},
    }
