"""What operators and people do with runs: run now, cancel, retry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import UNFINISHED, RunState, RunTrigger
from scheduler.database import AFTER_COMMIT
from scheduler.errors import Conflict, FieldError, Invalid, NotFound
from scheduler.runs.enqueue import enqueue
from scheduler.runs.jobs import JOBS
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Outcome, log_end


async def run_now(
    session: AsyncSession,
    *,
    name: str,
    arguments: Mapping[str, Any] | None,
    now: datetime,
    request_id: str | None = None,
    idempotency_key: str | None = None,
) -> UUID:
    """Ask for a run of a job of the service. Returns its id; the same key, or an unfinished run of a job that is
    declared unique, gives the one that is there.

    Raises `NotFound` (there is no such job), `Invalid` (the arguments, pointing below /args).
    """
    job = JOBS.get(name)
    if job is None:
        raise NotFound()
    if job.needs_schedule:
        raise Invalid(FieldError("", "Only a schedule can ask for it: POST /schedules/{id}/run", "needs_schedule"))
    if job.needs_request:
        raise Invalid(FieldError("", "Only a person's own request can ask for it", "needs_request"))
    try:
        job.arguments.model_validate(dict(arguments or {}))
    except ValidationError as error:
        raise Invalid(
            *(
                FieldError("/args" + "".join(f"/{part}" for part in fault["loc"]), fault["msg"], fault["type"])
                for fault in error.errors(include_url=False)
            )
        ) from None
    return await enqueue(
        session,
        job=name,
        trigger=RunTrigger.MANUAL,
        arguments=arguments,
        request_id=request_id,
        idempotency_key=idempotency_key,
        now=now,
    )


async def cancel(session: AsyncSession, *, run_id: UUID, now: datetime) -> None:
    """Cancel a run: at once where nobody has begun it; a running one is stopped by its worker within 2 s.

    Raises `NotFound`, `Conflict` (`already_finished`).
    """
    query = select(Run.__table__).where(Run.id == run_id).with_for_update()
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NotFound()
    if row.state not in _UNFINISHED:
        raise Conflict("This run has ended; there is nothing to cancel.", code="already_finished")
    change: dict[str, Any] = {"cancel_requested_at": row.cancel_requested_at or now}
    if row.state != RunState.RUNNING.value:
        change |= {
            "state": RunState.CANCELLED.value,
            "finished_at": now,
            "duration_ms": 0,
            "available_at": None,
            "unique_key": None,
            "seq": row.seq + 1,
        }
        run = RunningJob(
            id=row.id,
            job=row.job,
            trigger=row.trigger,
            attempt=row.attempt,
            started_at=now,
            worker="",
            owner_id=row.owner_id,
            request_id=row.request_id,
        )
        ended = Outcome(run, RunState.CANCELLED, now)
        # Not before the commit: a rollback must leave no record of an end.
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log_end(ended))
    await session.execute(update(Run.__table__).where(Run.id == run_id).values(**change))


async def retry(session: AsyncSession, *, run_id: UUID, now: datetime, request_id: str | None = None) -> UUID:
    """Ask for what a finished run did once more, as a new run with `retry_of`. Returns the new run's id.

    Raises `NotFound`, `Conflict` (`not_finished`; `unknown_job` where no worker knows it any longer).
    """
    row = (await session.execute(select(Run.__table__).where(Run.id == run_id))).one_or_none()
    if row is None:
        raise NotFound()
    if row.state in _UNFINISHED:
        raise Conflict("This run has not ended yet; wait for it, or cancel it.", code="not_finished")
    if row.job not in JOBS:
        raise Conflict("There is no job of this name any longer; there is nothing to run.", code="unknown_job")
    return await enqueue(
        session,
        job=row.job,
        trigger=RunTrigger.RETRY,
        # Two of one schedule never run at once; the dispatcher lets it go when no other is under way.
        state=RunState.QUEUED if row.schedule_id is None else RunState.BLOCKED,
        arguments=row.arguments,
        owner_id=row.owner_id,
        schedule_id=row.schedule_id,
        request_id=request_id,
        retry_of=row.id,
        now=now,
    )


_UNFINISHED = frozenset(state.value for state in UNFINISHED)
