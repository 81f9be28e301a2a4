"""What stands in a person's export: every table that says something about them, each as one file of JSON.

To add a table: a line in `SECTIONS` (or, where nothing in it is about people, in `NOT_ABOUT_PEOPLE`); a test holds the
two to the declared schema. What signs somebody in, or would, is never exported: whoever has stolen a session must not
get more of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column, ColumnElement, FromClause, Select, and_, or_, select

from models import (
    AccountExport,
    Activity,
    ApiToken,
    Base,
    Delivery,
    Email,
    IdempotencyKey,
    LoginFailure,
    LogRecord,
    NotificationPreference,
    OneTimeToken,
    PhoneCode,
    RecoveryCode,
    RefreshToken,
    Reminder,
    Run,
    RunAttempt,
    Schedule,
    Session,
    Task,
    TaskAssignee,
    TaskShare,
    User,
)
from scheduler.accounts.login_lock import address_digest, confirmation_digest

NOT_ABOUT_PEOPLE = {
    "metric": "counts of what the processes do",
    "worker": "processes",
}
"""Tables that say nothing about anybody, and what they hold."""

TOLD_IN_FULL = (
    "account_deletion",
    "assigned",
    "commented",
    "digest",
    "mentioned",
    "overdue",
    "schedule_failed",
    "security",
    "shared",
)
"""E-mails of these templates stand in the export as they went out. The others hold links that sign in, lead to a new
password, or act on a task without a sign-in: an export must not outlive the session that it was made in."""


class Person(NamedTuple):
    """Whose export it is."""

    id: UUID
    email: str


Shape = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One file of the export."""

    name: str
    about: str
    """What its rows are, in words for the person."""
    source: FromClause
    columns: tuple[ColumnElement[Any], ...]
    withheld: frozenset[str]
    """Columns of the table that are left out: secrets, others' data, and what only our machinery is about."""
    of: Callable[[Person], ColumnElement[bool]]
    by: tuple[Column[Any], ...]
    """The order in which it is read: unique together with `of`, and with an index."""
    shape: Shape = dict

    def query(self, person: Person) -> Select[Any]:
        """Its rows: the columns, and behind them those of `by`."""
        keys = (column.label(f"_{place}") for place, column in enumerate(self.by))
        return select(*self.columns, *keys).select_from(self.source).where(self.of(person)).order_by(*self.by)


def _of_table(
    model: type[Base],
    name: str,
    about: str,
    *,
    of: Callable[[Person], ColumnElement[bool]],
    by: tuple[Any, ...],
    without: tuple[str, ...] = (),
    shape: Shape = dict,
) -> Section:
    """All columns of one table but those that are named."""
    table = model.__table__
    return Section(
        name=name,
        about=about,
        source=table,
        columns=tuple(column for column in table.columns if column.key not in without),
        withheld=frozenset(without),
        of=of,
        by=tuple(table.c[each.key] for each in by),
        shape=shape,
    )


def _without_traceback(row: dict[str, Any]) -> dict[str, Any]:
    error = row["error"]
    return row | {"error": {key: error.get(key) for key in ("type", "message")} if isinstance(error, Mapping) else None}


def _without_exception(row: dict[str, Any]) -> dict[str, Any]:
    data = row["data"]
    if not isinstance(data, Mapping):
        return row
    return row | {"data": {key: value for key, value in data.items() if key not in ("exception", "traceback", "stack")}}


# -- what is not one table as it is --------------------------------------------------------------------------

_TASK, _ASSIGNEE, _SHARE, _USER = Task.__table__, TaskAssignee.__table__, TaskShare.__table__, User.__table__
_SHOWN_OF_TASKS = tuple(
    _TASK.c[key].label("task_id" if key == "id" else key)
    for key in ("id", "title", "description", "status", "priority", "category", "due_at", "all_day", "timezone")
)


def _others_on_my_tasks(name: str, about: str, table: Any, *more: Any) -> Section:
    return Section(
        name=name,
        about=about,
        source=table.join(_TASK, _TASK.c.id == table.c.task_id).join(_USER, _USER.c.id == table.c.user_id),
        columns=(table.c.task_id, table.c.user_id, _USER.c.name, *more),
        withheld=frozenset(),
        of=lambda person: and_(_TASK.c.creator_id == person.id, table.c.user_id != person.id),
        by=(table.c.task_id, table.c.user_id),
    )


def _me_on_tasks(name: str, about: str, table: Any, *more: Any) -> Section:
    return Section(
        name=name,
        about=about,
        source=table.join(_TASK, _TASK.c.id == table.c.task_id),
        columns=(*_SHOWN_OF_TASKS, *more),
        withheld=frozenset(),
        # Somebody else's task in the bin is for its creator alone to see.
        of=lambda person: and_(
            table.c.user_id == person.id, or_(_TASK.c.deleted_at.is_(None), _TASK.c.creator_id == person.id)
        ),
        by=(table.c.task_id,),
    )


def _runs_of(person: Person) -> Select[Any]:
    return select(Run.id).where(Run.owner_id == person.id)


def _sessions_of(person: Person) -> Select[Any]:
    return select(Session.id).where(Session.user_id == person.id)


SECTIONS = (
    _of_table(
        User,
        "account",
        "your account",
        of=lambda person: User.id == person.id,
        by=(User.id,),
        without=("password_hash", "totp_secret", "totp_last_step", "name_folded", "avatar_key"),
    ),
    _of_table(
        NotificationPreference,
        "notification_preferences",
        "which notifications you chose to get, or not to get, and how",
        of=lambda person: NotificationPreference.user_id == person.id,
        by=(NotificationPreference.type, NotificationPreference.channel),
    ),
    # -- how you sign in
    _of_table(
        Session,
        "sessions",
        "your sign-ins: when, from where, with what program",
        of=lambda person: Session.user_id == person.id,
        by=(Session.id,),
    ),
    _of_table(
        RefreshToken,
        "session_renewals",
        "when each of your sign-ins was carried on",
        of=lambda person: RefreshToken.session_id.in_(_sessions_of(person)),
        by=(RefreshToken.session_id, RefreshToken.digest),
        without=("digest",),
    ),
    _of_table(
        ApiToken,
        "api_tokens",
        "your API tokens, without the tokens themselves, of which we only keep digests",
        of=lambda person: ApiToken.user_id == person.id,
        by=(ApiToken.id,),
        without=("digest",),
    ),
    _of_table(
        RecoveryCode,
        "recovery_codes",
        "your recovery codes, of which we only keep digests: when each was used",
        of=lambda person: RecoveryCode.user_id == person.id,
        by=(RecoveryCode.digest,),
        without=("digest",),
    ),
    _of_table(
        OneTimeToken,
        "links_by_email",
        "links that we sent you for one use, of which we only keep digests: what for, when, whether you used them",
        of=lambda person: OneTimeToken.user_id == person.id,
        by=(OneTimeToken.digest,),
        without=("digest",),
    ),
    _of_table(
        PhoneCode,
        "phone_codes",
        "the code that is on its way to your telephone, without the code itself",
        of=lambda person: PhoneCode.user_id == person.id,
        by=(PhoneCode.user_id,),
        without=("digest",),
    ),
    _of_table(
        LoginFailure,
        "failed_sign_ins",
        "when somebody failed to sign in as you, or to confirm something with your password",
        of=lambda person: LoginFailure.address_digest.in_(
            [address_digest(person.email), confirmation_digest(person.id)]
        ),
        by=(LoginFailure.address_digest, LoginFailure.at, LoginFailure.id),
        without=("id", "address_digest"),
    ),
    # -- tasks
    _of_table(
        Task,
        "tasks",
        "tasks that you created, those in the bin too",
        of=lambda person: Task.creator_id == person.id,
        by=(Task.id,),
    ),
    _others_on_my_tasks(
        "assigned_by_you", "to whom the tasks that you created are assigned", _ASSIGNEE, _ASSIGNEE.c.assigned_at
    ),
    _others_on_my_tasks(
        "shared_by_you",
        "with whom the tasks that you created are shared",
        _SHARE,
        _SHARE.c.permission,
        _SHARE.c.shared_at,
    ),
    _me_on_tasks("assigned_to_you", "tasks that are assigned to you", _ASSIGNEE, _ASSIGNEE.c.assigned_at),
    _me_on_tasks("shared_with_you", "tasks that are shared with you", _SHARE, _SHARE.c.permission, _SHARE.c.shared_at),
    _of_table(
        Reminder,
        "reminders",
        "reminders that you set",
        of=lambda person: Reminder.user_id == person.id,
        by=(Reminder.fire_at, Reminder.id),
        without=("owner", "lease_until", "seq"),
    ),
    # -- what went out to you
    _of_table(
        Delivery,
        "deliveries",
        "what you were reminded of, through which channel, and how it ended",
        of=lambda person: Delivery.user_id == person.id,
        by=(Delivery.fire_at, Delivery.id),
    ),
    _of_table(
        Email,
        "emails",
        "e-mails to you; those that we still have, and that hold no link to sign in by, stand in the folder emails",
        # Not those to a new address: whether there is one would tell whether that address is somebody else's.
        of=lambda person: and_(Email.user_id == person.id, Email.template != "change_email"),
        by=(Email.id,),
        without=("message", "owner", "lease_until"),
    ),
    # -- schedules and runs
    _of_table(
        Schedule,
        "schedules",
        "your schedules",
        of=lambda person: Schedule.user_id == person.id,
        by=(Schedule.created_at, Schedule.id),
        without=("system_job",),
    ),
    _of_table(
        Run,
        "runs",
        "what your schedules and requests made us do, and what came of it",
        of=lambda person: Run.owner_id == person.id,
        by=(Run.queued_at, Run.id),
        without=("worker", "seq", "queue", "priority", "unique_key", "idempotency_key", "available_at"),
        shape=_without_traceback,
    ),
    _of_table(
        RunAttempt,
        "run_attempts",
        "earlier attempts at these",
        of=lambda person: RunAttempt.run_id.in_(_runs_of(person)),
        by=(RunAttempt.run_id, RunAttempt.seq),
        without=("worker", "seq"),
        shape=_without_traceback,
    ),
    # -- what is on record
    _of_table(
        Activity,
        "activity",
        "what you did",
        of=lambda person: Activity.actor_id == person.id,
        by=(Activity.id,),
    ),
    _of_table(
        Activity,
        "done_to_your_account",
        "what administrators and the service did to your account",
        of=lambda person: and_(
            Activity.target_id == person.id, or_(Activity.actor_id.is_(None), Activity.actor_id != person.id)
        ),
        by=(Activity.id,),
        without=("actor_id", "ip", "user_agent"),
    ),
    _of_table(
        LogRecord,
        "log_records",
        "records that our log keeps of your requests",
        of=lambda person: LogRecord.user_id == person.id,
        by=(LogRecord.at, LogRecord.id),
        shape=_without_exception,
    ),
    _of_table(
        IdempotencyKey,
        "idempotency_keys",
        "when you sent a request that can be sent again without being done twice",
        of=lambda person: IdempotencyKey.user_id == person.id,
        by=(IdempotencyKey.digest,),
        without=("digest", "fingerprint", "owner", "headers", "body"),
    ),
    _of_table(
        AccountExport,
        "exports",
        "this export",
        of=lambda person: AccountExport.user_id == person.id,
        by=(AccountExport.user_id,),
        without=("storage_key",),
    ),
)
