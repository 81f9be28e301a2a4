"""What is deleted once its time is past: one function a kind, and all kinds in one table.

To add a kind: a function that removes a batch of it, and a line in `KINDS`, walked by a column that has an index.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from models import (
    ApiToken,
    Email,
    IdempotencyKey,
    LoginFailure,
    LogRecord,
    OneTimeToken,
    PhoneCode,
    RefreshToken,
    Reminder,
    Run,
    Schedule,
    Session,
    Task,
    TaskAssignee,
    TaskShare,
)
from models.email import EmailState
from models.run import UNFINISHED, RunState, RunTrigger
from scheduler.accounts.sign_in import SESSION_LIFETIME
from scheduler.database import Database, affected
from scheduler.idempotency import KEPT
from scheduler.newest import index_of
from scheduler.paging import after
from scheduler.runs.jobs import JOBS
from scheduler.runs.read import last_runs

A_DAY = timedelta(days=1)
TOKENS = A_DAY
"""After they expire, so that no request under way still needs them, and operators can see why a link came too late."""
SESSIONS = timedelta(days=30)
"""After somebody ended them, for the record: who was signed in from where, and whether a stolen token comes back."""
LOGIN_FAILURES = A_DAY
"""Much longer than they count for the lock of a login."""
UNUSED_SESSIONS = SESSION_LIFETIME + A_DAY
"""After their last use: they have ended a day before, so that no request under way still needs them."""
API_TOKENS = timedelta(days=30)
"""After they expire: their owner sees in the list why a program of theirs can't sign in any longer."""
BIN = timedelta(days=30)
"""The contract's."""
MESSAGES = timedelta(days=30)
"""After they were sent: as far back as people look at what went out, by default."""
DEAD_EMAILS = timedelta(days=90)
"""After the last try: long enough for an operator to find out, mend the address or the server, and try again."""

NEVER = datetime(2199, 12, 31, tzinfo=UTC)
"""When a sent e-mail whose message was emptied is tried next. It takes the row out of the part of the index that the
next cleanup walks: a year of rows must not be looked at every hour."""

RETRIES_AT_ONCE = 5000


class Removed(NamedTuple):
    """What came of a batch."""

    counts: dict[str, int]
    """Rows by name; the names stand in the run's result."""
    handled: int
    """How many of the keys, from the first, are done with; the others come again in the next batch."""


Remove = Callable[[AsyncSession, Sequence[Any], datetime, int], Awaitable[Removed]]
"""Removes the rows with these keys that are past `until`, touching about so many rows at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Rows of one table that go when their time is past; they are walked by an index, oldest first."""

    counts: tuple[str, ...]
    """The names under which `remove` counts."""
    key: InstrumentedAttribute[Any]
    by: InstrumentedAttribute[Any]
    """The instant by which they are walked; it is never later than the one that decides."""
    where: tuple[ColumnElement[bool], ...] = ()
    """What stands before `by` in the index."""
    kept: timedelta | None
    """How long after `by`; None: as long as the operator's setting says."""
    is_past: Callable[[datetime], ColumnElement[bool]] | None = None
    """Which of those walked over are really past, where `by` does not say it all."""
    spared: Callable[[Database, datetime], Awaitable[set[Any]]] | None = None
    """Keys that stay however old they are, found before the walk."""
    remove: Remove

    @property
    def name(self) -> str:
        """What it is about."""
        return self.counts[-1]


def behind(
    by: InstrumentedAttribute[Any], instant: datetime, key: InstrumentedAttribute[Any], value: Any
) -> ColumnElement[bool]:
    """The rows that come after this one, by the instant and then by the key."""
    return after((by.expression, instant, False), (key.expression, value, False))


# -- tokens and sessions -------------------------------------------------------------------------------------


async def _remove_one_time_tokens(
    session: AsyncSession, digests: Sequence[bytes], until: datetime, limit: int
) -> Removed:
    condition = OneTimeToken.expires_at <= until
    return await _delete(session, "one_time_tokens", OneTimeToken.digest, digests, condition)


def _session_is_past(until: datetime) -> ColumnElement[bool]:
    """Ended by then, or, where nobody ended it, so long unused that it has ended by itself."""
    unused_since = until + SESSIONS - UNUSED_SESSIONS
    return or_(Session.ended_at <= until, and_(Session.ended_at.is_(None), Session.last_used_at <= unused_since))


async def _remove_sessions(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    """Their refresh tokens first, a batch at a time: a session in use for a year has some 30,000."""
    tokens = select(RefreshToken.digest).where(RefreshToken.session_id.in_(ids)).limit(limit)
    digests = (await session.execute(tokens)).scalars().all()
    counts = {"refresh_tokens": 0, "sessions": 0}
    if digests:
        gone = await session.execute(delete(RefreshToken.__table__).where(RefreshToken.digest.in_(digests)))
        counts["refresh_tokens"] = affected(gone)
    if len(digests) == limit:
        return Removed(counts, 0)
    removed = await _delete(session, "sessions", Session.id, ids, _session_is_past(until))
    return Removed(counts | removed.counts, removed.handled)


async def _remove_api_tokens(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    return await _delete(session, "api_tokens", ApiToken.id, ids, ApiToken.expires_at <= until)


async def _remove_phone_codes(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    """By person, who may have asked for a new one meanwhile."""
    return await _delete(session, "phone_codes", PhoneCode.user_id, ids, PhoneCode.expires_at <= until)


async def _remove_login_failures(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    return await _delete(session, "login_failures", LoginFailure.id, ids, LoginFailure.at <= until)


async def _remove_idempotency_keys(
    session: AsyncSession, digests: Sequence[bytes], until: datetime, limit: int
) -> Removed:
    """By the key, which may have been used anew meanwhile."""
    condition = IdempotencyKey.created_at <= until
    return await _delete(session, "idempotency_keys", IdempotencyKey.digest, digests, condition)


# -- runs and records ----------------------------------------------------------------------------------------


async def _remove_log_records(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    return await _delete(session, "log_records", LogRecord.id, ids, LogRecord.at <= until)


def _has_finished(until: datetime) -> ColumnElement[bool]:
    return and_(Run.state.in_(_FINAL), Run.finished_at <= until)


def _run_is_past(until: datetime) -> ColumnElement[bool]:
    """Finished by then, and not the last run of a schedule that is still there (one may fire once a year)."""
    other = aliased(Run)
    newest = (
        select(other.id)
        .with_hint(other, f"FORCE INDEX ({_BY_SCHEDULE})", "mysql")
        .where(other.schedule_id == Run.schedule_id)
        .order_by(other.queued_at.desc(), other.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    has_schedule = exists().where(Schedule.id == Run.schedule_id)
    return and_(_has_finished(until), or_(Run.schedule_id.is_(None), Run.id != newest, ~has_schedule))


async def _spared_runs(database: Database, until: datetime) -> set[UUID]:
    """The last run of each job, which `GET /admin/jobs` shows, and runs to which a retry's `retry_of` points."""
    async with database.read() as session:
        spared = {row.id for row in (await last_runs(session, jobs=list(JOBS))).values()}
    first = aliased(Run)
    # People and operators ask for these by hand, so they are few.
    query = (
        select(Run.id, Run.queued_at, Run.retry_of, first.finished_at)
        .outerjoin(first, first.id == Run.retry_of)
        .where(Run.trigger == RunTrigger.RETRY.value)
        .order_by(Run.queued_at, Run.id)
        .limit(RETRIES_AT_ONCE)
    )
    position: tuple[ColumnElement[bool], ...] = ()
    while True:
        async with database.read() as session:
            rows = (await session.execute(query.where(*position))).all()
        spared |= {row.retry_of for row in rows if row.finished_at is not None and row.finished_at <= until}
        if len(rows) < RETRIES_AT_ONCE:
            return spared
        position = (behind(Run.queued_at, rows[-1].queued_at, Run.id, rows[-1].id),)


async def _remove_runs(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    """With their attempts, which go by themselves. A run that has ended never begins again, so nothing can have
    changed since it was looked at but that it is gone."""
    return await _delete(session, "runs", Run.id, ids, _has_finished(until))


# -- the bin -------------------------------------------------------------------------------------------------


async def _remove_tasks(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    """With all that hangs on them, which goes by itself: each whole, or not at all, as somebody may take it out of the
    bin. Deliveries stay: the ledger outlives what it speaks of."""
    hanging = union_all(
        *(
            select(each.task_id.label("task_id")).where(each.task_id.in_(ids))
            for each in (Reminder, TaskAssignee, TaskShare)
        )
    ).subquery()
    found = await session.execute(select(hanging.c.task_id, func.count()).group_by(hanging.c.task_id))
    weights = dict(found.tuples().all())
    handled = rows = 0
    for task_id in ids:
        rows += 1 + weights.get(task_id, 0)
        if handled and rows > limit:
            break
        handled += 1
    removed = await _delete(session, "tasks", Task.id, ids[:handled], Task.deleted_at <= until)
    return Removed(removed.counts, handled)


# -- e-mails -------------------------------------------------------------------------------------------------


async def _empty_messages(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    """The text goes. The row stays: people's ledgers show its Message-ID, operators its recipient and subject."""
    emptied = await session.execute(
        update(Email.__table__)
        .where(Email.id.in_(ids), Email.state == EmailState.SENT.value, Email.sent_at <= until)
        .values(message=b"", next_attempt_at=NEVER)
    )
    return Removed({"emptied_emails": affected(emptied)}, len(ids))


async def _remove_dead_emails(session: AsyncSession, ids: Sequence[UUID], until: datetime, limit: int) -> Removed:
    """Whole: no server took them, so nobody has a message with their Message-ID; the ledger says that they failed."""
    condition = and_(Email.state == EmailState.DEAD.value, Email.next_attempt_at <= until)
    return await _delete(session, "dead_emails", Email.id, ids, condition)


# -- all of them ---------------------------------------------------------------------------------------------


async def _delete(
    session: AsyncSession,
    name: str,
    key: InstrumentedAttribute[Any],
    keys: Sequence[Any],
    condition: ColumnElement[bool],
) -> Removed:
    """Delete by primary key; the condition is looked at again, as a row may have changed since it was read."""
    gone = await session.execute(delete(key.class_.__table__).where(key.in_(keys), condition))
    return Removed({name: affected(gone)}, len(keys))


_FINAL = [state.value for state in RunState if state not in UNFINISHED]
_BY_SCHEDULE = index_of(Run.__table__.c.queued_at, "schedule_id")

KINDS = (
    Kind(
        counts=("one_time_tokens",),
        key=OneTimeToken.digest,
        by=OneTimeToken.expires_at,
        kept=TOKENS,
        remove=_remove_one_time_tokens,
    ),
    Kind(
        counts=("refresh_tokens", "sessions"),
        key=Session.id,
        by=Session.last_used_at,
        kept=SESSIONS,
        is_past=_session_is_past,
        remove=_remove_sessions,
    ),
    Kind(
        counts=("api_tokens",),
        key=ApiToken.id,
        by=ApiToken.expires_at,
        kept=API_TOKENS,
        remove=_remove_api_tokens,
    ),
    Kind(
        counts=("phone_codes",),
        key=PhoneCode.user_id,
        by=PhoneCode.expires_at,
        kept=TOKENS,
        remove=_remove_phone_codes,
    ),
    Kind(
        counts=("login_failures",),
        key=LoginFailure.id,
        by=LoginFailure.at,
        kept=LOGIN_FAILURES,
        remove=_remove_login_failures,
    ),
    Kind(
        counts=("idempotency_keys",),
        key=IdempotencyKey.digest,
        by=IdempotencyKey.created_at,
        kept=KEPT,
        remove=_remove_idempotency_keys,
    ),
    Kind(counts=("log_records",), key=LogRecord.id, by=LogRecord.at, kept=None, remove=_remove_log_records),
    Kind(
        counts=("runs",),
        key=Run.id,
        by=Run.queued_at,
        kept=None,
        is_past=_run_is_past,
        spared=_spared_runs,
        remove=_remove_runs,
    ),
    Kind(counts=("tasks",), key=Task.id, by=Task.deleted_at, kept=BIN, remove=_remove_tasks),
    Kind(
        counts=("emptied_emails",),
        key=Email.id,
        by=Email.next_attempt_at,
        where=(Email.state == EmailState.SENT.value,),
        kept=MESSAGES,
        is_past=lambda until: Email.sent_at <= until,
        remove=_empty_messages,
    ),
    Kind(
        counts=("dead_emails",),
        key=Email.id,
        by=Email.next_attempt_at,
        where=(Email.state == EmailState.DEAD.value,),
        kept=DEAD_EMAILS,
        remove=_remove_dead_emails,
    ),
)
"""Everything that expires. Notifications and orphaned attachments go here as they come."""
