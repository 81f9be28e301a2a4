"""The tick: claim what is due, fire it, and go on until nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from structlog.contextvars import bound_contextvars

from scheduler.clock import now as present
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.reminders.claim import claim_due
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.fire import Fired, fire
from scheduler.reminders.late import gather_late
from scheduler.runs import ledger
from scheduler.settings import Settings

log = get_logger("reminders")


async def send_reminders(
    database: Database,
    *,
    settings: Settings,
    emails: ReminderEmails,
    worker: str,
    clock: Callable[[], datetime] = present,
    stopping: asyncio.Event | None = None,
    wake_sender: Callable[[], Awaitable[None]] | None = None,
) -> Fired | None:
    """Fire every reminder that is due. Idempotent: any number may run at once, in any number of processes.

    Returns what came of it, or None when nothing was due; then it is no run either, and costs two statements.
    `wake_sender` is called after each commit that leaves e-mails to send.
    """
    run: ledger.RunningJob | None = None
    total = Fired()
    try:
        while not (stopping and stopping.is_set()):
            claim, now = new_id(), clock()
            async with database.write() as session:
                due = await claim_due(session, claim=claim, now=now)
                if due:
                    if run is None:
                        run = await ledger.begin(session, job=ledger.JobName.SEND_REMINDERS, worker=worker, now=now)
                    else:
                        await ledger.keep(session, run=run, now=now)
            if not due:
                break
            assert run is not None
            with bound_contextvars(**run.log_context()):
                fired = await fire(database, claim=claim, due=due, emails=emails, settings=settings, now=clock())
                log.info(
                    "reminders.fired",
                    claimed=fired.claimed,
                    emails=fired.emails,
                    late=fired.late,
                    skipped=fired.skipped,
                    lost=fired.lost,
                )
            total.add(fired)
            if fired.emails and wake_sender:
                await wake_sender()
        while not (stopping and stopping.is_set()):
            async with database.write() as session:
                gathered = await gather_late(
                    session,
                    emails=emails,
                    require_verified_email=settings.require_verified_email,
                    now=clock(),
                )
                if gathered.deliveries and run is None:
                    run = await ledger.begin(session, job=ledger.JobName.SEND_REMINDERS, worker=worker, now=clock())
            if not gathered.deliveries:
                break
            assert run is not None
            log.info(
                "reminders.gathered",
                deliveries=gathered.deliveries,
                emails=gathered.emails,
                **run.log_context(),
            )
            total.emails += gathered.emails
            if wake_sender:
                await wake_sender()
    except Exception as error:
        if run is not None:
            await _record_failure(database, run=run, error=error, now=clock())
        raise
    if run is None:
        return None
    await ledger.succeed(database, run=run, result=_result(total), now=clock())
    return total


async def _record_failure(database: Database, *, run: ledger.RunningJob, error: Exception, now: datetime) -> None:
    try:
        await ledger.fail(database, run=run, error=error, now=now)
    except Exception:  # the database is away: the run's lease runs out, and it is reaped as lost
        log.warning("run.end_not_recorded", **run.log_context())


def _result(total: Fired) -> dict[str, Any]:
    return {name: getattr(total, name) for name in Fired.__slots__}
