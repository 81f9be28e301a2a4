"""What people do with their schedules: make, change, delete, run now, make up for a past range."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Schedule
from models.run import RunState, RunTrigger
from models.schedule import Missed, Overlap
from scheduler.access import Actor
from scheduler.clock import EARLIEST, zone
from scheduler.errors import FieldError, Invalid
from scheduler.identifiers import new_id
from scheduler.runs.enqueue import NewRun, enqueue, enqueue_many
from scheduler.runs.jobs import JobName
from scheduler.schedules.actions import ActionType, check_action
from scheduler.schedules.cron import parse_cron
from scheduler.schedules.read import get_row
from scheduler.schedules.unfinished import cancel_unbegun, unfinished_runs
from scheduler.settings import Settings
from scheduler.tasks.assign import check_assignees

MOST_OF_A_PERSON = 200
MOST_OF_A_BACKFILL = 1000
LONGEST_NAME = 200
_REQUIRED = ("name", "cron", "action")
_DEFAULTS = {"enabled": True, "overlap": Overlap.SKIP.value, "missed": Missed.ONCE.value}
_INSTANT = timedelta(microseconds=1)


async def create_schedule(
    session: AsyncSession, *, actor: Actor, values: Mapping[str, Any], settings: Settings, now: datetime
) -> UUID:
    """Make a schedule from `name`, `cron`, `action` and, by default, the actor's `timezone`, `enabled`, `overlap: skip`
    and `missed: once`. Returns its id. Raises `Invalid`.
    """
    missing = [FieldError(f"/{name}", "must be given", "required") for name in _REQUIRED if values.get(name) is None]
    if missing:
        raise Invalid(*missing)
    row: dict[str, Any] = {**_DEFAULTS, "timezone": actor.timezone} | {
        key: values[key] for key in values if values[key] is not None
    }
    _check(row, settings=settings, now=now)
    await _check_assignees(session, row["action"])
    query = select(func.count()).select_from(Schedule).where(Schedule.user_id == actor.user_id)
    if (await session.execute(query)).scalar_one() >= MOST_OF_A_PERSON:
        raise Invalid(FieldError("", f"a person has at most {MOST_OF_A_PERSON} schedules", "too_long"))
    schedule_id = new_id()
    await session.execute(
        insert(Schedule.__table__),
        [
            {
                "id": schedule_id,
                "user_id": actor.user_id,
                "system_job": None,
                "job": JobName.RUN_SCHEDULE.value,
                **row,
                "cron": parse_cron(row["cron"], row["timezone"]).expression,
                "next_run_at": _next_run_at(row, now),
                "created_at": now,
                "updated_at": now,
            }
        ],
    )
    return schedule_id


async def change_schedule(
    session: AsyncSession,
    *,
    actor: Actor,
    schedule_id: UUID,
    changes: Mapping[str, Any],
    settings: Settings,
    now: datetime,
) -> None:
    """Change the fields given, as `create_schedule` takes them; None takes a field back to its default.

    Another cron or zone, and resuming, count from now: nothing that was missed runs. Raises `NotFound`, `Invalid`.
    """
    before = (await get_row(session, actor=actor, schedule_id=schedule_id, for_update=True))._asdict()
    missing = [
        FieldError(f"/{name}", "must be given", "required") for name in _REQUIRED if changes.get(name, ...) is None
    ]
    if missing:
        raise Invalid(*missing)
    defaults = {**_DEFAULTS, "timezone": actor.timezone}
    given = {key: defaults[key] if value is None else value for key, value in changes.items()}
    after = before | given
    _check(after, settings=settings, now=now, changed=given.keys())
    if "action" in given:
        await _check_assignees(session, after["action"])
    if "cron" in given:
        after["cron"] = parse_cron(after["cron"], after["timezone"]).expression
    columns = {key: after[key] for key in given if after[key] != before[key]}
    if not columns:
        return
    if columns.keys() & {"cron", "timezone", "enabled"}:
        columns["next_run_at"] = _next_run_at(after, now)
    await session.execute(update(Schedule).where(Schedule.id == schedule_id).values(**columns, updated_at=now))


async def delete_schedule(session: AsyncSession, *, actor: Actor, schedule_id: UUID, now: datetime) -> None:
    """Delete a schedule, and cancel its runs that nobody has begun; the others and its history stay. Raises
    `NotFound`."""
    row = await get_row(session, actor=actor, schedule_id=schedule_id, for_update=True)
    await cancel_unbegun(session, schedule_id=row.id, job=row.job, owner_id=actor.user_id, now=now)
    await session.execute(delete(Schedule).where(Schedule.id == schedule_id))


async def trigger_schedule(
    session: AsyncSession,
    *,
    actor: Actor,
    schedule_id: UUID,
    now: datetime,
    request_id: str | None = None,
    idempotency_key: str | None = None,
) -> UUID:
    """Do now what the schedule says, paused or not; behind its run that is under way, if there is one.

    Returns the run's id. Raises `NotFound`.
    """
    row = await get_row(session, actor=actor, schedule_id=schedule_id, for_update=True)
    busy = await unfinished_runs(session, [row.id], jobs=[row.job], owners=[row.user_id])
    return await enqueue(
        session,
        job=row.job,
        trigger=RunTrigger.MANUAL,
        state=RunState.BLOCKED if busy else RunState.QUEUED,
        arguments={"action": row.action},
        owner_id=actor.user_id,
        schedule_id=row.id,
        request_id=request_id,
        idempotency_key=idempotency_key,
        now=now,
    )


async def backfill_schedule(
    session: AsyncSession,
    *,
    actor: Actor,
    schedule_id: UUID,
    since: datetime,
    until: datetime,
    now: datetime,
    request_id: str | None = None,
) -> int:
    """Make a run of each firing in [since, until) that has none, paused or not, one after the other in their order.

    Returns how many. Raises `NotFound`, `Invalid` (pointing at /from or /until).
    """
    row = await get_row(session, actor=actor, schedule_id=schedule_id, for_update=True)
    if until > now:
        raise Invalid(FieldError("/until", "must lie in the past", "future"))
    if not EARLIEST <= since < until:
        raise Invalid(FieldError("/from", "must lie before until", "out_of_order"))
    try:
        cron = parse_cron(row.cron, row.timezone)
    except ValueError as error:
        raise Invalid(FieldError("", f"the schedule's cron {error}; change it first", "unreadable")) from None
    firings = list(cron.firings(since - _INSTANT, until - _INSTANT, MOST_OF_A_BACKFILL + 1))
    if len(firings) > MOST_OF_A_BACKFILL:
        message = f"makes more than {MOST_OF_A_BACKFILL} firings, which is the most at once; take a shorter range"
        raise Invalid(FieldError("/from", message, "too_long"))
    busy = await unfinished_runs(session, [row.id], jobs=[row.job], owners=[row.user_id])
    runs = [
        NewRun(
            job=row.job,
            trigger=RunTrigger.MANUAL,
            # The engine lets them go one by one, the earliest first.
            state=RunState.BLOCKED if busy or number else RunState.QUEUED,
            arguments={"action": row.action},
            owner_id=actor.user_id,
            schedule_id=row.id,
            scheduled_for=firing,
            request_id=request_id,
        )
        for number, firing in enumerate(firings)
    ]
    return await enqueue_many(session, runs, now=now)


def _check(
    row: Mapping[str, Any], *, settings: Settings, now: datetime, changed: Any = ("timezone", "cron", "action", "name")
) -> None:
    """Raise `Invalid` for what can't be done; of a schedule that changes, only for what its change touches."""
    errors = []
    if "name" in changed and not (isinstance(row["name"], str) and 1 <= len(row["name"]) <= LONGEST_NAME):
        errors.append(FieldError("/name", f"must be text of 1 to {LONGEST_NAME} characters", "too_long"))
    for name, kind in (("overlap", Overlap), ("missed", Missed)):
        if row[name] not in list(kind):
            errors.append(FieldError(f"/{name}", f"must be one of {', '.join(kind)}"))
    # Resuming counts anew by a rule that an older version may have taken.
    if "cron" in changed or "timezone" in changed or ("enabled" in changed and row["enabled"]):
        errors += _wrong_in_times(row, now)
    if errors:
        raise Invalid(*errors)
    if "action" in changed:
        check_action(row["action"], settings=settings, now=now)


async def _check_assignees(session: AsyncSession, action: Mapping[str, Any]) -> None:
    """Raise `Invalid` for a task that would be given to nobody who is there."""
    if action["type"] == ActionType.CREATE_TASK:
        ids = [UUID(str(each)) for each in action["task"].get("assignee_ids") or ()]
        await check_assignees(session, user_ids=ids, field="/action/task/assignee_ids")


def _wrong_in_times(row: Mapping[str, Any], now: datetime) -> list[FieldError]:
    try:
        zone(row["timezone"])
    except ValueError as error:
        return [FieldError("/timezone", str(error))]
    try:
        cron = parse_cron(row["cron"], row["timezone"])
    except ValueError as error:
        return [FieldError("/cron", str(error))]
    return [] if cron.next_after(now) is not None else [FieldError("/cron", "never fires")]


def _next_run_at(row: Mapping[str, Any], now: datetime) -> datetime | None:
    return parse_cron(row["cron"], row["timezone"]).next_after(now) if row["enabled"] else None
