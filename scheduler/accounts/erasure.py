"""Erasing an account: the person is gone at once, in one transaction; what they left behind follows in small batches
(`scheduler.accounts.traces`), by the job `erase_accounts`.

The row stays, as others' tasks point at it, with nothing in it that says whose it was.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import (
    ApiToken,
    Delivery,
    Email,
    LoginFailure,
    NotificationPreference,
    OneTimeToken,
    PhoneCode,
    RecoveryCode,
    Schedule,
    Task,
    TaskAssignee,
    TaskShare,
    User,
)
from models.delivery import DeliveryState
from models.email import EmailState
from models.user import AccountStatus
from scheduler.access import Role
from scheduler.accounts.deletion import GRACE
from scheduler.accounts.login_lock import address_digest, confirmation_digest
from scheduler.accounts.profile import raise_versions_naming
from scheduler.accounts.revocation import revoke
from scheduler.accounts.traces import remove_traces
from scheduler.accounts.users import end_sessions, get_user
from scheduler.activity.record import record
from scheduler.clock import EARLIEST
from scheduler.database import Database, is_unavailable
from scheduler.deliveries.settle import Ending, skip
from scheduler.logs import get_logger
from scheduler.reminders.recheck import DEACTIVATED
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.schedules.unfinished import cancel_unbegun
from scheduler.storage import Storage

NAME = "Deleted user"
SETTLED = timedelta(minutes=10)
"""Within which all that other processes still hold of a person (records of the log, a request that was under way) is
stored, so that one more look for traces after it finds the last of them."""

log = get_logger("accounts")


async def erase_accounts(database: Database, *, storage: Storage, run: RunningJob, now: datetime) -> dict[str, int]:
    """Erase the accounts whose time has come, and what is left of those that were erased since.

    Each by itself; stopped anywhere, the next run goes on from there. Returns how many accounts were erased, and how
    many rows of each kind went. Raises `JobFailed`, with the same as its result, when some could not be erased.
    """
    counts: Counter[str] = Counter({"erased": 0, "left": 0})
    seen: set[UUID] = set()
    failures: dict[UUID, Exception] = {}
    # Again, until nobody is new: whoever is deleted meanwhile counts on this run.
    while due := [each for each in await _due(database, now) if each not in seen]:
        most = len(seen) + len(due)
        for user_id in due:
            try:
                counts["erased"] += await database.retry_write(partial(_erase_if_due, user_id=user_id, now=now))
                counts.update(await remove_traces(database, user_id=user_id, storage=storage))
                await database.retry_write(partial(_finish, user_id=user_id, now=now))
            except Exception as error:
                if is_unavailable(error):
                    raise
                log.exception("account.not_erased", **run.log_context(), account_id=str(user_id))
                failures[user_id] = error
            seen.add(user_id)
            run.report_progress(len(seen), most)
    counts["left"] = len(failures)
    if failures:
        told = "; ".join(f"{key}: {type(error).__name__}: {error}"[:300] for key, error in failures.items())
        raise JobFailed(f"Not every account could be erased. {told}", result=dict(counts))
    return dict(counts)


async def erase(session: AsyncSession, *, user_id: UUID, with_own_tasks: bool, now: datetime) -> None:
    """Take everything from an account that says whose it is, and from its tasks the person: nobody finds the account
    any more, nobody signs in, nothing goes out to it.

    `with_own_tasks`: tasks that nobody else takes part in go too; else all stay. The caller holds the row. What is left
    behind in other tables is for `remove_traces`. Raises `NotFound`.
    """
    present = await get_user(session, user_id=user_id, for_update=True)
    # Tasks before deliveries, as everybody locks them.
    await _leave_tasks(session, user_id, with_own_tasks=with_own_tasks)
    await _stop_messages(session, user_id)
    await _stop_schedules(session, user_id, now)
    await end_sessions(session, user_id=user_id, now=now)
    for model in (ApiToken, OneTimeToken, PhoneCode, RecoveryCode, NotificationPreference):
        table = model.__table__
        await session.execute(delete(table).where(table.c.user_id == user_id))
    digests = [address_digest(present.email), confirmation_digest(user_id)]
    await session.execute(delete(LoginFailure.__table__).where(LoginFailure.address_digest.in_(digests)))
    await session.execute(update(User.__table__).where(User.id == user_id).values(_nobody(user_id, now)))
    revoke(session, user_id)
    await record(session, actor_id=None, action="account_erased", target_type="user", target_id=user_id, now=now)


def _nobody(user_id: UUID, now: datetime) -> dict[str, Any]:
    """The columns of an erased account. The picture's key goes with the picture."""
    return {
        # Unique, and without an @: an address like this is nobody's, and nobody can sign up with it beforehand.
        "email": f"erased-{user_id}",
        "name": NAME,
        "name_folded": "",
        "role": Role.USER.value,
        "status": AccountStatus.ERASED.value,
        "password_hash": None,
        "email_verified_at": None,
        "phone": None,
        "phone_verified_at": None,
        "bio": "",
        "timezone": "UTC",
        "locale": "en",
        "totp_secret": None,
        "totp_enabled_at": None,
        "totp_last_step": None,
        "deletion_requested_at": now,
        "updated_at": now,
    }


async def _leave_tasks(session: AsyncSession, user_id: UUID, *, with_own_tasks: bool) -> None:
    if with_own_tasks:
        others = [
            exists().where(model.__table__.c.task_id == Task.id, model.__table__.c.user_id != user_id)
            for model in (TaskAssignee, TaskShare)
        ]
        # Into the bin, as if they had been there since ever: nobody finds them any more, and as many as they may be,
        # they are deleted a few at a time.
        await session.execute(
            update(Task.__table__)
            .where(Task.creator_id == user_id, *(~other for other in others))
            .values(deleted_at=EARLIEST)
        )
    await raise_versions_naming(session, user_id)
    for model in (TaskAssignee, TaskShare):
        table = model.__table__
        await session.execute(delete(table).where(table.c.user_id == user_id))


async def _stop_messages(session: AsyncSession, user_id: UUID) -> None:
    """What has not gone out to the person does not go out."""
    query = select(Delivery.id, Delivery.reminder_id, Delivery.task_id).where(
        Delivery.user_id == user_id,
        Delivery.state.in_([DeliveryState.GATHERING.value, DeliveryState.SENDING.value]),
    )
    endings = [Ending(*row) for row in await session.execute(query)]
    if endings:
        await skip(session, endings, reason=DEACTIVATED)
    unsent = (Email.user_id == user_id, Email.state != EmailState.SENT.value)
    await session.execute(delete(Email.__table__).where(*unsent))


async def _stop_schedules(session: AsyncSession, user_id: UUID, now: datetime) -> None:
    query = select(Schedule.id, Schedule.job).where(Schedule.user_id == user_id).with_for_update()
    for row in (await session.execute(query)).all():
        await cancel_unbegun(session, schedule_id=row.id, job=row.job, owner_id=user_id, now=now)
    await session.execute(delete(Schedule.__table__).where(Schedule.user_id == user_id))


# -- the job's steps -----------------------------------------------------------------------------------------


def _grace_is_over(now: datetime) -> ColumnElement[bool]:
    """Also of who was deactivated by an administrator since: that takes nothing back."""
    waiting = [AccountStatus.DELETING.value, AccountStatus.DEACTIVATED.value]
    return and_(User.status.in_(waiting), User.deletion_requested_at <= now - GRACE)


async def _due(database: Database, now: datetime) -> list[UUID]:
    """Whom there is something to erase of, the longest waiting first."""
    has_traces = User.status == AccountStatus.ERASED.value
    query = (
        select(User.id)
        .where(User.deletion_requested_at.is_not(None), or_(_grace_is_over(now), has_traces))
        .order_by(User.deletion_requested_at, User.id)
    )
    async with database.read() as session:
        return list((await session.execute(query)).scalars())


async def _erase_if_due(session: AsyncSession, *, user_id: UUID, now: datetime) -> bool:
    """Erase, unless it was done before or the person has just come back."""
    query = select(User.id).where(User.id == user_id, _grace_is_over(now)).with_for_update()
    if (await session.execute(query)).one_or_none() is None:
        return False
    await erase(session, user_id=user_id, with_own_tasks=True, now=now)
    return True


async def _finish(session: AsyncSession, *, user_id: UUID, now: datetime) -> None:
    """Nothing more is looked for of those who were erased a while ago."""
    await session.execute(
        update(User.__table__)
        .where(
            User.id == user_id,
            User.status == AccountStatus.ERASED.value,
            User.deletion_requested_at <= now - SETTLED,
        )
        .values(deletion_requested_at=None)
    )
