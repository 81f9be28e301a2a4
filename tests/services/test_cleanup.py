"""The cleanup: what is past its time goes, to the microsecond, and nothing else; stopped anywhere, all is whole."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import count as counter
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, func, select, text
from structlog.testing import capture_logs

from models import (
    ApiToken,
    Base,
    Delivery,
    Email,
    IdempotencyKey,
    LoginFailure,
    LogRecord,
    OneTimeToken,
    PhoneCode,
    RefreshToken,
    Reminder,
    Run,
    RunAttempt,
    Schedule,
    Session,
    Task,
    TaskAssignee,
)
from models.run import UNFINISHED, RunState
from scheduler.access import Actor
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.digests import token_digest
from scheduler.accounts.sign_in import SESSION_LIFETIME, refresh
from scheduler.cleanup.clean import AIM_S, FIRST_BATCH, LEAST, MOST, clean_up, fitted
from scheduler.cleanup.kinds import A_DAY, KINDS, NEVER
from scheduler.database import Database
from scheduler.deliveries.read import list_deliveries
from scheduler.errors import NotFound, Unauthenticated
from scheduler.identifiers import new_id
from scheduler.outbox.claim import claim_emails
from scheduler.outbox.manage import retry_email
from scheduler.runs import control
from scheduler.runs.read import last_runs, list_runs
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.tasks.change import restore_task
from tests.factories import NOW, People, add_rows, email_row, reminder_row, run_row, task_row
from tests.services.stored import count, one, rows, set_, tally

MICROSECOND = timedelta(microseconds=1)
LONG_AGO = NOW - timedelta(days=400)
MONTH_AGO = NOW - timedelta(days=30)
NOTHING = {
    "one_time_tokens": 0,
    "refresh_tokens": 0,
    "sessions": 0,
    "api_tokens": 0,
    "phone_codes": 0,
    "login_failures": 0,
    "idempotency_keys": 0,
    "log_records": 0,
    "runs": 0,
    "tasks": 0,
    "emptied_emails": 0,
    "dead_emails": 0,
    "kinds_left": 0,
}
_numbers = counter()


class Job(RunningJob):
    """A run of the cleanup that keeps what it said of its progress, and may be told to do something at each step."""

    def __init__(self, at_each_batch: Callable[[int], None] | None = None) -> None:
        super().__init__(id=new_id(), job="cleanup", trigger="cron", attempt=1, started_at=NOW, worker="worker")
        self.reports: list[tuple[int, int]] = []
        self._at_each_batch = at_each_batch

    def report_progress(self, done: int, total: int) -> None:
        super().report_progress(done, total)
        self.reports.append((done, total))
        if self._at_each_batch is not None:
            self._at_each_batch(len(self.reports))


async def clean(database: Database, *, now: datetime = NOW, **options: Any) -> dict[str, int]:
    return await clean_up(database, run=options.pop("run", Job()), now=now, **options)


def token_row(user: Actor, expires_at: datetime) -> dict[str, Any]:
    return {
        "digest": random_digest(),
        "user_id": user.user_id,
        "purpose": "verify_email",
        "email": "alice@example.com",
        "created_at": expires_at - A_DAY,
        "expires_at": expires_at,
        "used_at": None,
    }


def random_digest() -> bytes:
    return hashlib.sha256(str(next(_numbers)).encode()).digest()


def api_token_row(user: Actor, expires_at: datetime | None) -> dict[str, Any]:
    return {
        "id": new_id(),
        "digest": random_digest(),
        "user_id": user.user_id,
        "name": "my program",
        "scopes": "tasks:read",
        "created_at": LONG_AGO,
        "expires_at": expires_at,
        "last_used_at": None,
    }


def phone_code_row(user: Actor, expires_at: datetime) -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "phone": "+4915112345678",
        "digest": random_digest(),
        "attempts": 0,
        "created_at": LONG_AGO,
        "expires_at": expires_at,
    }


def login_failure_row(at: datetime) -> dict[str, Any]:
    return {"id": new_id(), "address_digest": random_digest(), "at": at}


def idempotency_key_row(user: Actor, created_at: datetime) -> dict[str, Any]:
    return {
        "digest": random_digest(),
        "user_id": user.user_id,
        "fingerprint": random_digest(),
        "owner": new_id(),
        "created_at": created_at,
        "status": 204,
        "headers": {},
        "body": b"",
    }


def session_row(user: Actor, last_used_at: datetime, ended_at: datetime | None = None) -> dict[str, Any]:
    return {
        "id": new_id(),
        "user_id": user.user_id,
        "ip": "::1",
        "user_agent": "browser",
        "created_at": LONG_AGO,
        "last_used_at": last_used_at,
        "ended_at": ended_at,
    }


def refresh_token_row(session_id: UUID) -> dict[str, Any]:
    return {"digest": random_digest(), "session_id": session_id, "created_at": LONG_AGO, "used_at": None}


def log_row(at: datetime) -> dict[str, Any]:
    return {"id": new_id(), "at": at, "level": "info", "event": "run.succeeded", "logger": "runs", "data": {}}


def attempt_row(run_id: UUID, seq: int) -> dict[str, Any]:
    return {"run_id": run_id, "seq": seq, "number": seq, "state": "failed", "finished_at": LONG_AGO}


def schedule_row(user: Actor) -> dict[str, Any]:
    return {
        "id": new_id(),
        "user_id": user.user_id,
        "job": "run_schedule",
        "name": "mine",
        "cron": "0 9 1 1 *",
        "timezone": "UTC",
        "action": {},
        "enabled": True,
        "overlap": "skip",
        "missed": "once",
        "created_at": LONG_AGO,
        "updated_at": LONG_AGO,
    }


async def keep_last_runs(database: Database) -> None:
    """A recent run of each job, so that none of the others is the last of its job."""
    await add_rows(database, Run, [run_row(NOW, job=job) for job in ("cleanup", "run_schedule", "reap")])


async def ids(database: Database, model: type[Base], *conditions: Any) -> set[UUID]:
    return {row.id for row in await rows(database, model, *conditions)}


# -- what goes -----------------------------------------------------------------------------------------------


async def test_nothing_to_do(database: Database, people: People) -> None:
    assert await clean(database) == NOTHING


@pytest.mark.heavy(on="mariadb")
async def test_what_is_past_goes_to_the_microsecond(database: Database, people: People) -> None:
    await keep_last_runs(database)
    kept: dict[type[Base], Any] = {}
    makers: list[tuple[type[Base], Callable[[timedelta], dict[str, Any]]]] = [
        (OneTimeToken, lambda late: token_row(people.alice, NOW - A_DAY + late)),
        (Session, lambda late: session_row(people.alice, NOW - SESSION_LIFETIME - A_DAY + late)),
        (Session, lambda late: session_row(people.bob, LONG_AGO, ended_at=MONTH_AGO + late)),
        (ApiToken, lambda late: api_token_row(people.alice, MONTH_AGO + late)),
        (PhoneCode, lambda late: phone_code_row(people.bob if late else people.alice, NOW - A_DAY + late)),
        (LoginFailure, lambda late: login_failure_row(NOW - A_DAY + late)),
        (IdempotencyKey, lambda late: idempotency_key_row(people.alice, NOW - A_DAY + late)),
        (LogRecord, lambda late: log_row(MONTH_AGO + late)),
        (Run, lambda late: run_row(LONG_AGO, finished_at=MONTH_AGO + late)),
        (Task, lambda late: task_row(people.alice.user_id, at=LONG_AGO, deleted_at=MONTH_AGO + late)),
        (Email, lambda late: email_row(NOW - timedelta(days=90) + late, state="dead", sent_at=None)),
    ]
    for model, make in makers:
        goes, stays = make(timedelta(0)), make(MICROSECOND)
        await add_rows(database, model, [goes])
        await add_rows(database, model, [stays])
        (key,) = model.__table__.primary_key.columns
        kept.setdefault(model, set()).add(stays[key.name])
    forever = api_token_row(people.alice, None)
    await add_rows(database, ApiToken, [forever])
    kept[ApiToken].add(forever["id"])
    expected = NOTHING | {name: 1 for name in NOTHING if name not in ("refresh_tokens", "emptied_emails", "kinds_left")}
    assert await clean(database) == expected | {"sessions": 2}
    for table, keys in kept.items():
        conditions = [Run.queued_at < NOW] if table is Run else []
        assert {row[0] for row in await rows(database, table, *conditions)} == keys
    assert await clean(database) == NOTHING
    assert await clean(database, now=NOW + MICROSECOND) == expected | {"sessions": 2}
    assert await clean(database, now=NOW + timedelta(days=1000)) == NOTHING
    assert await ids(database, ApiToken) == {forever["id"]}


async def test_the_operator_says_how_long_runs_and_records_are_kept(database: Database, people: People) -> None:
    await keep_last_runs(database)
    for days in (2, 4):
        await add_rows(database, Run, [run_row(NOW - timedelta(days=days))])
        await add_rows(database, LogRecord, [log_row(NOW - timedelta(days=days))])
    await add_rows(database, Task, [task_row(people.alice.user_id, deleted_at=NOW - timedelta(days=4))])
    assert await clean(database, retention=timedelta(days=3)) == NOTHING | {"runs": 1, "log_records": 1}
    assert await clean(database, retention=timedelta(days=1)) == NOTHING | {"runs": 1, "log_records": 1}


# -- runs ----------------------------------------------------------------------------------------------------


async def test_only_what_is_finished_goes_and_its_attempts_with_it(database: Database) -> None:
    await keep_last_runs(database)
    made = {
        state: run_row(LONG_AGO, state=state.value, finished_at=None if state in UNFINISHED else LONG_AGO)
        for state in RunState
    }
    await add_rows(database, Run, list(made.values()))
    await add_rows(database, RunAttempt, [attempt_row(row["id"], seq) for row in made.values() for seq in (1, 2)])
    finished = [state for state in RunState if state not in UNFINISHED]
    assert await clean(database) == NOTHING | {"runs": len(finished)}
    unfinished = {made[state]["id"] for state in UNFINISHED}
    assert await ids(database, Run, Run.queued_at == LONG_AGO) == unfinished
    assert await tally(database, RunAttempt.run_id) == dict.fromkeys(unfinished, 2)


async def test_the_last_run_of_a_schedule_stays(database: Database, people: People) -> None:
    await keep_last_runs(database)
    schedules = [schedule_row(people.alice) for _ in range(3)]
    await add_rows(database, Schedule, schedules[:2])  # the third is deleted
    last = {}
    for number, schedule in enumerate(schedules):
        # Of several made at once, as by a backfill, the one with the greatest id is the last.
        times = [LONG_AGO, *[LONG_AGO + timedelta(days=1)] * 3]
        own = [
            run_row(at, job="run_schedule", schedule_id=schedule["id"], scheduled_for=LONG_AGO + timedelta(hours=place))
            for place, at in enumerate(times)
        ]
        await add_rows(database, Run, own[::-1] if number else own)
        last[schedule["id"]] = own[-1]["id"]
    await add_rows(database, Run, [run_row(NOW, job="run_schedule", schedule_id=schedules[1]["id"])])
    assert await clean(database) == NOTHING | {"runs": 3 + 4 + 4}
    assert await ids(database, Run, Run.queued_at < NOW) == {last[schedules[0]["id"]]}
    assert await clean(database) == NOTHING


async def test_the_last_run_of_each_job_stays(database: Database) -> None:
    made = [run_row(LONG_AGO + timedelta(days=day), job=job) for day in range(3) for job in ("reap", "cleanup")]
    await add_rows(database, Run, made)
    assert await clean(database) == NOTHING | {"runs": 4}
    async with database.read() as session:
        shown = await last_runs(session, jobs=["reap", "cleanup"])
    assert {row.id for row in shown.values()} == {row["id"] for row in made[-2:]} == await ids(database, Run)


@pytest.mark.heavy(on="mariadb")
async def test_what_was_retried_stays_as_long_as_the_retry(database: Database) -> None:
    await keep_last_runs(database)
    first = run_row(LONG_AGO, state="failed")
    second = run_row(LONG_AGO, trigger="retry", state="failed")
    third = run_row(NOW - A_DAY, trigger="retry")
    await add_rows(database, Run, [first, second, third])
    await set_(database, Run, second["id"], retry_of=first["id"])
    await set_(database, Run, third["id"], retry_of=second["id"])
    assert await clean(database) == NOTHING
    later = NOW + timedelta(days=30)
    await add_rows(database, Run, [run_row(later)])
    for gone in (third, second, first):
        await clean(database, now=later)
        assert gone["id"] not in await ids(database, Run)
        for row in await rows(database, Run):
            assert row.retry_of is None or row.retry_of in await ids(database, Run)
    assert await count(database, Run, Run.id.in_([first["id"], second["id"], third["id"]])) == 0


# -- tokens and sessions -------------------------------------------------------------------------------------


async def test_sessions_stay_on_record_and_in_use(database: Database, people: People) -> None:
    alice = people.alice
    in_use = session_row(alice, NOW - SESSION_LIFETIME + MICROSECOND)
    ended_lately = session_row(alice, LONG_AGO, ended_at=NOW - A_DAY)
    unused = session_row(alice, LONG_AGO)
    ended = session_row(alice, LONG_AGO, ended_at=LONG_AGO)
    made = [in_use, ended_lately, unused, ended]
    await add_rows(database, Session, made)
    await add_rows(database, RefreshToken, [refresh_token_row(row["id"]) for row in made for _ in range(3)])
    assert await clean(database) == NOTHING | {"sessions": 2, "refresh_tokens": 6}
    assert await tally(database, RefreshToken.session_id) == {in_use["id"]: 3, ended_lately["id"]: 3}
    assert await ids(database, Session) == {in_use["id"], ended_lately["id"]}


async def test_a_session_in_its_last_moment_can_be_carried_on(
    database: Database, people: People, access_tokens: AccessTokens
) -> None:
    session_id = new_id()
    last_used_at = NOW - SESSION_LIFETIME + MICROSECOND
    await add_rows(database, Session, [session_row(people.alice, last_used_at) | {"id": session_id}])
    tokens = ["pun_r_" + "a" * 40, "pun_r_" + "b" * 40]
    made = [refresh_token_row(session_id) | {"digest": token_digest(token)} for token in tokens]
    await add_rows(database, RefreshToken, made)
    assert await clean(database) == NOTHING
    await refresh(database, refresh_token=tokens[0], access_tokens=access_tokens, now=NOW)
    # Unused from now on, it ends; for a day more it is said that it has ended.
    end = NOW + SESSION_LIFETIME
    assert await clean(database, now=end) == NOTHING
    with pytest.raises(Unauthenticated) as refused:
        await refresh(database, refresh_token=tokens[1], access_tokens=access_tokens, now=end)
    assert refused.value.error_code == "token_revoked"


async def test_many_tokens_of_few_sessions_go_in_small_batches(database: Database, people: People) -> None:
    sessions = [session_row(people.alice, LONG_AGO + timedelta(days=day)) for day in range(3)]
    alive = session_row(people.alice, NOW)
    await add_rows(database, Session, [*sessions, alive])
    tokens = [refresh_token_row(row["id"]) for row in sessions for _ in range(700)]
    await add_rows(database, RefreshToken, [*tokens, refresh_token_row(alive["id"])])
    with parameters(database) as seen:
        assert await clean(database) == NOTHING | {"sessions": 3, "refresh_tokens": 2100}
    assert max(seen) <= MOST + 5
    assert await tally(database, RefreshToken.session_id) == {alive["id"]: 1}


# -- the bin -------------------------------------------------------------------------------------------------


async def bin_of(database: Database, owner: Actor, *, tasks: int, reminders: int = 3) -> list[UUID]:
    """Tasks that have lain in the bin for too long, each with an assignee and so many reminders."""
    made = [
        task_row(owner.user_id, at=LONG_AGO, deleted_at=LONG_AGO + timedelta(minutes=place)) for place in range(tasks)
    ]
    await add_rows(database, Task, made)
    await add_rows(
        database,
        TaskAssignee,
        [{"task_id": row["id"], "user_id": owner.user_id, "assigned_at": LONG_AGO} for row in made],
    )
    reminder_rows = [
        reminder_row(row["id"], owner.user_id, LONG_AGO, state="skipped") for row in made for _ in range(reminders)
    ]
    await add_rows(database, Reminder, reminder_rows)
    return [row["id"] for row in made]


async def test_the_bin_is_emptied_with_all_that_hangs_on_it_but_the_ledger(database: Database, people: People) -> None:
    (gone,) = await bin_of(database, people.alice, tasks=1)
    (stays,) = await bin_of(database, people.alice, tasks=1)
    await set_(database, Task, stays, deleted_at=None)
    told = {
        "id": new_id(),
        "reminder_id": new_id(),
        "task_id": gone,
        "user_id": people.alice.user_id,
        "audience": "assignees",
        "channel": "email",
        "state": "sent",
        "fire_at": LONG_AGO,
        "sent_at": LONG_AGO,
        "created_at": LONG_AGO,
    }
    await add_rows(database, Delivery, [told])
    assert await clean(database) == NOTHING | {"tasks": 1}
    assert await ids(database, Task) == {stays}
    assert await tally(database, Reminder.task_id) == {stays: 3}
    assert await tally(database, TaskAssignee.task_id) == {stays: 1}
    assert await ids(database, Delivery) == {told["id"]}


@pytest.mark.heavy(on="mariadb")
async def test_a_task_with_more_reminders_than_a_batch_goes_whole(database: Database, people: People) -> None:
    await bin_of(database, people.alice, tasks=2, reminders=MOST + 1)
    await bin_of(database, people.alice, tasks=10)
    assert await clean(database) == NOTHING | {"tasks": 12}
    assert await count(database, Reminder) == await count(database, TaskAssignee) == 0


# -- e-mails -------------------------------------------------------------------------------------------------


async def test_of_a_sent_email_only_the_message_goes(database: Database, people: People) -> None:
    month_ago, later = email_row(MONTH_AGO), email_row(MONTH_AGO + MICROSECOND)
    late = email_row(LONG_AGO, sent_at=NOW - A_DAY)  # its server was away for long
    await add_rows(database, Email, [month_ago, later, late])
    told = {
        "id": new_id(),
        "reminder_id": new_id(),
        "task_id": new_id(),
        "user_id": people.alice.user_id,
        "audience": "assignees",
        "channel": "email",
        "state": "sent",
        "fire_at": MONTH_AGO,
        "sent_at": MONTH_AGO,
        "email_id": month_ago["id"],
        "created_at": MONTH_AGO,
    }
    await add_rows(database, Delivery, [told])
    assert await clean(database) == NOTHING | {"emptied_emails": 1}
    messages = {row.id: row.message for row in await rows(database, Email)}
    assert messages == {month_ago["id"]: b"", later["id"]: later["message"], late["id"]: late["message"]}
    emptied = await one(database, Email, Email.id == month_ago["id"])
    changed = {"message": b"", "next_attempt_at": NEVER}
    assert dict(emptied._mapping) == month_ago | changed | {"owner": None, "lease_until": None}
    async with database.read() as session:
        (line,) = (await list_deliveries(session, actor=people.alice, now=NOW, limit=50)).items
    assert (line.state, line.message_id) == ("sent", month_ago["message_id"])
    assert await clean(database) == NOTHING


async def test_what_was_emptied_is_not_looked_at_again(database: Database) -> None:
    await add_rows(database, Email, [email_row(LONG_AGO) for _ in range(300)])
    job = Job()
    assert await clean(database, run=job) == NOTHING | {"emptied_emails": 300}
    assert job.reports[-1] == (300, 300)
    again = Job()
    assert await clean(database, run=again) == NOTHING
    assert again.reports[-1] == (0, 0)


async def test_an_email_that_is_to_be_sent_stays_whole(database: Database) -> None:
    waiting = [email_row(LONG_AGO, state=state, sent_at=None) for state in ("pending", "sending")]
    await add_rows(database, Email, waiting)
    assert await clean(database) == NOTHING
    async with database.write() as session:
        (claimed,) = await claim_emails(session, owner=new_id(), now=NOW)
    assert claimed.envelope.data == waiting[0]["message"]


async def test_a_dead_email_that_was_tried_again_is_kept_anew(database: Database) -> None:
    dead = email_row(LONG_AGO, state="dead", sent_at=None)
    await add_rows(database, Email, [dead])
    async with database.write() as session:
        await retry_email(session, email_id=dead["id"], now=NOW)
    assert await clean(database) == NOTHING
    await set_(database, Email, dead["id"], state="dead")
    assert await clean(database, now=NOW + timedelta(days=89)) == NOTHING
    assert await clean(database, now=NOW + timedelta(days=90)) == NOTHING | {"dead_emails": 1}


# -- batches, limits, progress -------------------------------------------------------------------------------


@contextmanager
def parameters(database: Database) -> Iterator[list[int]]:
    """How many parameters each DELETE has meanwhile: about the rows that it names."""
    seen: list[int] = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        if statement.startswith("DELETE"):
            seen.append(len(values))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


@pytest.mark.heavy(on="mariadb")
async def test_batches_are_small_and_take_turns(database: Database) -> None:
    await keep_last_runs(database)
    await add_rows(database, LogRecord, [log_row(LONG_AGO) for _ in range(1500)])  # all at the same instant
    await add_rows(database, Run, [run_row(LONG_AGO) for _ in range(1500)])
    order: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE"):
            order.append(statement.split()[2])

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    with parameters(database) as seen:
        assert await clean(database) == NOTHING | {"log_records": 1500, "runs": 1500}
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    assert max(seen) <= MOST + 10
    assert order[:6] == ["log_record", "run"] * 3


def test_a_batch_is_fitted_to_the_time_that_it_holds_its_locks() -> None:
    assert fitted(100, AIM_S) == 100
    assert fitted(100, AIM_S / 1.5) == 150
    assert fitted(100, AIM_S / 100) == 200
    assert fitted(100, AIM_S * 4) == 25
    assert fitted(100, 0.0) == 200
    assert fitted(MOST, AIM_S / 2) == MOST
    assert fitted(100, 60.0) == LEAST


async def test_it_stops_at_its_time_limit_and_the_next_goes_on(database: Database) -> None:
    await keep_last_runs(database)
    await add_rows(database, LogRecord, [log_row(LONG_AGO) for _ in range(FIRST_BATCH + 50)])
    ticks = counter()  # each look at the clock is 10 ms later
    counts = await clean(database, seconds=lambda: next(ticks) / 100, longest_s=0.25)
    assert counts["log_records"] == FIRST_BATCH and counts["kinds_left"] > 0
    assert await count(database, LogRecord) == 50
    assert await clean(database) == NOTHING | {"log_records": 50}


async def test_it_says_how_far_it_has_come(database: Database) -> None:
    await keep_last_runs(database)
    await add_rows(database, LogRecord, [log_row(LONG_AGO + timedelta(hours=hour)) for hour in range(700)])
    unfinished = [run_row(LONG_AGO, state="running", finished_at=None) for _ in range(20)]
    await add_rows(database, Run, [*unfinished, *(run_row(LONG_AGO) for _ in range(20))])
    job = Job()
    assert await clean(database, run=job) == NOTHING | {"log_records": 700, "runs": 20}
    assert len(job.reports) > 3
    assert job.reports == sorted(job.reports) and {total for _, total in job.reports} == {740}
    assert (job.progress_done, job.progress_total) == (740, 740)


async def test_a_kind_that_fails_does_not_keep_the_others_from_being_cleaned(
    database: Database, people: People
) -> None:
    (held,) = await bin_of(database, people.alice, tasks=1)
    await add_rows(database, LogRecord, [log_row(LONG_AGO) for _ in range(150)])
    await add_rows(database, Email, [email_row(LONG_AGO)])
    key = "BINARY(16)" if database.is_mysql else "BLOB"
    try:
        async with database.write() as session:
            # What a later version might forget: a table whose rows hold tasks back.
            await session.execute(
                text(f"CREATE TABLE holds_back (task_id {key}, FOREIGN KEY (task_id) REFERENCES task (id))")
            )
        async with database.write() as session:
            await session.execute(text("INSERT INTO holds_back SELECT id FROM task"))
        with capture_logs() as logged, pytest.raises(JobFailed) as failed:
            await clean(database)
        assert [(each["event"], each["kind"]) for each in logged] == [("cleanup.kind_failed", "tasks")]
        assert "tasks: IntegrityError" in str(failed.value) and not failed.value.permanent
        assert failed.value.result == NOTHING | {"log_records": 150, "emptied_emails": 1, "kinds_left": 1}
        assert await ids(database, Task) == {held} and await count(database, Reminder) == 3
    finally:
        async with database.write() as session:
            await session.execute(text("DROP TABLE holds_back"))
    assert await clean(database) == NOTHING | {"tasks": 1}


# -- stopped in the middle -----------------------------------------------------------------------------------


async def check_bin(database: Database) -> int:
    """Every task has all that hangs on it, as one statement sees it. Returns how many tasks there are."""
    hanging = [
        select(func.count()).where(model.task_id == Task.id).scalar_subquery() for model in (Reminder, TaskAssignee)
    ]
    async with database.read() as session:
        found = (await session.execute(select(*hanging).select_from(Task))).all()
    assert set(found) <= {(3, 1)}
    return len(found)


@pytest.mark.heavy(on="mariadb")
async def test_cancelled_between_batches_it_leaves_all_whole(database: Database, people: People) -> None:
    await bin_of(database, people.alice, tasks=400)

    def cancel_me(batch: int) -> None:
        if batch == len(KINDS) + 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(clean(database, run=Job(cancel_me)))
    assert 0 < await check_bin(database) < 400
    await clean(database)
    assert await check_bin(database) == 0


@pytest.mark.heavy(on="mariadb")
async def test_cancelled_anywhere_it_leaves_all_whole(database: Database, people: People) -> None:
    await keep_last_runs(database)
    await bin_of(database, people.alice, tasks=400)
    await add_rows(database, Run, [run_row(LONG_AGO) for _ in range(400)])
    cut = 0
    for milliseconds in range(3, 63, 4):
        cleaning = asyncio.create_task(clean(database))
        await asyncio.sleep(milliseconds / 1000)
        cleaning.cancel()
        try:
            await cleaning
        except asyncio.CancelledError:
            cut += 1
        await check_bin(database)
    assert cut > 5
    await clean(database)
    assert await check_bin(database) == await old_runs(database) == 0


async def old_runs(database: Database) -> int:
    return await count(database, Run, Run.queued_at == LONG_AGO)


# -- others at work ------------------------------------------------------------------------------------------


async def test_two_at_once_delete_everything_once(database: Database, people: People) -> None:
    await keep_last_runs(database)
    await bin_of(database, people.alice, tasks=200)
    await add_rows(database, LogRecord, [log_row(LONG_AGO + timedelta(seconds=place)) for place in range(900)])
    await add_rows(database, Run, [run_row(LONG_AGO + timedelta(seconds=place)) for place in range(900)])
    first, second = await asyncio.gather(clean(database), clean(database))
    both = {name: first[name] + second[name] for name in first}
    assert both == NOTHING | {"tasks": 200, "log_records": 900, "runs": 900}
    assert await check_bin(database) == await count(database, LogRecord) == await old_runs(database) == 0


async def test_what_changed_since_it_was_looked_at_stays(database: Database, people: People) -> None:
    """Between the look at a row and its end, its owner may have come: each kind looks again as it deletes."""
    (task_id,) = await bin_of(database, people.alice, tasks=1)
    dead = email_row(LONG_AGO, state="dead", sent_at=None)
    await add_rows(database, Email, [dead])
    async with database.write() as session:
        await restore_task(session, actor=people.alice, task_id=task_id, now=NOW)
        await retry_email(session, email_id=dead["id"], now=NOW)
    for name, key in (("tasks", task_id), ("dead_emails", dead["id"]), ("emptied_emails", dead["id"])):
        (kind,) = [kind for kind in KINDS if kind.name == name]
        async with database.write() as session:
            assert (await kind.remove(session, [key], MONTH_AGO, 100)).counts == {name: 0}
    assert await check_bin(database) == 1
    assert (await one(database, Email)).message == dead["message"]


async def test_a_task_is_taken_out_of_the_bin_whole_or_not_at_all(database: Database, people: People) -> None:
    task_ids = await bin_of(database, people.alice, tasks=60)
    restored = set()

    async def restore(task_id: UUID) -> None:
        with suppress(NotFound):
            await database.retry_write(
                lambda session: restore_task(session, actor=people.alice, task_id=task_id, now=NOW)
            )
            restored.add(task_id)

    async def restore_all() -> None:
        for task_id in reversed(task_ids):
            await restore(task_id)

    counts, _ = await asyncio.gather(clean(database), restore_all())
    assert restored and counts["tasks"] == 60 - len(restored)
    assert await ids(database, Task) == restored
    assert await check_bin(database) == len(restored)


@pytest.mark.heavy(on="mariadb")
async def test_runs_are_written_read_and_retried_meanwhile(database: Database) -> None:
    await keep_last_runs(database)
    old = [run_row(LONG_AGO + timedelta(seconds=place), job="run_schedule", state="failed") for place in range(1500)]
    await add_rows(database, Run, old)
    await add_rows(database, LogRecord, [log_row(LONG_AGO) for _ in range(1500)])
    await add_rows(database, RunAttempt, [attempt_row(row["id"], 1) for row in old])
    done = asyncio.Event()
    written: set[UUID] = set()
    retries: dict[UUID, UUID] = {}

    async def write() -> None:
        while not done.is_set():
            fresh = [run_row(NOW) for _ in range(20)]
            await add_rows(database, Run, fresh)
            await add_rows(database, LogRecord, [log_row(NOW) for _ in range(20)])
            written.update(row["id"] for row in fresh)
            await asyncio.sleep(0.05)

    async def retry_one(run_id: UUID) -> None:
        retries[run_id] = await database.retry_write(lambda session: control.retry(session, run_id=run_id, now=NOW))

    async def retry() -> None:
        for row in reversed(old):
            if done.is_set():
                return
            with suppress(NotFound):
                await retry_one(row["id"])
            await asyncio.sleep(0.05)  # on SQLite they and the cleanup share one writer's lock

    async def read() -> int:
        pages = 0
        while not done.is_set():
            cursor = None
            for _ in range(5):
                async with database.read() as session:
                    page = await list_runs(session, limit=200, cursor=cursor)
                seen = [(row.queued_at, row.id) for row in page.items]
                assert seen == sorted(seen, reverse=True)
                cursor, pages = page.next_cursor, pages + 1
                if cursor is None:
                    break
        return pages

    async def clean_then_stop() -> dict[str, int]:
        try:
            return await clean(database)
        finally:
            done.set()

    counts, _, _, pages = await asyncio.gather(clean_then_stop(), write(), retry(), read())
    assert pages and written and retries
    assert counts["log_records"] == 1500
    left = await ids(database, Run, Run.queued_at < MONTH_AGO)
    assert counts["runs"] == 1500 - len(left) and left <= retries.keys()
    assert written | set(retries.values()) <= await ids(database, Run)
    assert await tally(database, RunAttempt.run_id) == dict.fromkeys(left, 1)


async def test_it_rests_between_batches(database: Database) -> None:
    """So that others come to their turn: of the time that it takes, it is at work for two thirds."""
    await add_rows(database, LogRecord, [log_row(LONG_AGO) for _ in range(2000)])
    busy = 0.0
    began: dict[Any, float] = {}

    def taken(connection: Any, _record: Any, _proxy: Any) -> None:
        began[connection] = time.monotonic()

    def given(connection: Any, _record: Any) -> None:
        nonlocal busy
        busy += time.monotonic() - began.pop(connection)

    event.listen(database.engine.sync_engine, "checkout", taken)
    event.listen(database.engine.sync_engine, "checkin", given)
    start = time.monotonic()
    await clean(database)
    assert busy < 0.8 * (time.monotonic() - start)
