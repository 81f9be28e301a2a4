"""The tick: claim what is due, fire it, and go on until nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from models.reminder import ReminderState
from scheduler.clock import now as present
from scheduler.database import Database, is_retryable, is_unavailable
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.outbox.hand_over import HandOver
from scheduler.reminders.claim import BATCH, Due, claim_due, release_claim
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.fire import Fired, fire
from scheduler.reminders.late import gather_late
from scheduler.runs import ledger
from scheduler.runs.jobs import JobName
from scheduler.runs.running import RunningJob
from scheduler.settings import Settings

LANES = 2
"""How many claims are under way at once when there is much to do: one waits for the database while one renders."""
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
    hand_over: HandOver | None = None,
    run: RunningJob | None = None,
) -> Fired | None:
    """Fire every reminder that is due. Idempotent: any number may run at once, in any number of processes.

    Returns what came of it, or None when nothing was due; then it is no run either, and costs two statements.
    `wake_sender` is called after each commit that leaves e-mails to send; `hand_over` takes them to the sender of this
    process without a way through the database and back. `run` is one that somebody asked for, and ends.
    """
    stopping = stopping or asyncio.Event()
    sweep = _Sweep(database, settings, emails, worker, clock, stopping, wake_sender, hand_over, run)
    try:
        await sweep.fire_all()
        await sweep.gather_all()
    except Exception as error:
        await sweep.record_failure(error)
        raise
    return await sweep.record_success()


class _Sweep:
    """One call of `send_reminders`: its run, which begins with the first thing found to do, and its counts."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        emails: ReminderEmails,
        worker: str,
        clock: Callable[[], datetime],
        stopping: asyncio.Event,
        wake_sender: Callable[[], Awaitable[None]] | None,
        hand_over: HandOver | None,
        run: RunningJob | None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._emails = emails
        self._worker = worker
        self._clock = clock
        self._stopping = stopping
        self._wake_sender = wake_sender
        self._hand_over = hand_over
        self._run = run
        self._ends_run = run is None
        self._total = Fired()

    async def fire_all(self) -> None:
        """Claim and fire until nothing is due; in two lanes from the first full claim on."""
        claim, due = await self._claim()
        others = [self._lane() for _ in range(LANES - 1)] if len(due) == BATCH else []
        ends = await asyncio.gather(self._lane(claim, due), *others, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def gather_all(self) -> None:
        """Write the e-mails of late deliveries until none is left."""
        while not self._stopping.is_set():
            async with self._database.write() as session:
                gathered = await gather_late(
                    session,
                    emails=self._emails,
                    require_verified_email=self._settings.require_verified_email,
                    now=self._clock(),
                )
                if gathered.deliveries:
                    run = await self._begin_run(session)
            if not gathered.deliveries:
                return
            log.info("reminders.gathered", deliveries=gathered.deliveries, emails=gathered.emails, **run.log_context())
            self._total.emails += gathered.emails
            await self._wake(gathered.emails)

    async def record_success(self) -> Fired | None:
        """End the run, if there is one."""
        if self._run is None or not self._ends_run:
            return self._total if self._run else None
        await ledger.succeed(self._database, run=self._run, result=self._total.counts(), now=self._clock())
        return self._total

    async def record_failure(self, error: Exception) -> None:
        """End the run, if there is one and the database will have it."""
        if self._run is None or not self._ends_run:
            return
        try:
            await ledger.fail(self._database, run=self._run, error=error, now=self._clock())
        except Exception:  # the database is away: its worker finds it later, and says that it is lost
            log.warning("run.end_not_recorded", **self._run.log_context())

    async def _lane(self, claim: UUID | None = None, due: Sequence[Due] = ()) -> None:
        if claim is None:
            claim, due = await self._claim()
        while due and self._run is not None:
            with bound_contextvars(**self._run.log_context()):
                fired = await self._fire(claim, due)
                log.info("reminders.fired", **fired.counts())
            self._total.add(fired)
            await self._wake(fired.emails)
            if self._hand_over is not None:
                await self._hand_over.wait_for_room(BATCH)
            claim, due = await self._claim()

    async def _fire(self, claim: UUID, due: Sequence[Due]) -> Fired:
        try:
            return await fire(
                self._database,
                claim=claim,
                due=due,
                emails=self._emails,
                settings=self._settings,
                now=self._clock(),
                hand_over=self._hand_over,
            )
        except Exception as error:
            # After a fault of ours they stay claimed until the lease runs out: meanwhile those behind get through.
            if is_unavailable(error) or is_retryable(error):
                with suppress(Exception):
                    async with self._database.write() as session:
                        ids = [each.id for each in due]
                        await release_claim(session, claim=claim, reminder_ids=ids, state=ReminderState.CLAIMED)
            raise

    async def _claim(self) -> tuple[UUID, Sequence[Due]]:
        claim = new_id()
        if self._stopping.is_set():
            return claim, ()
        async with self._database.write() as session:
            due = await claim_due(session, claim=claim, now=self._clock())
            if due:
                await self._begin_run(session)
        return claim, due

    async def _begin_run(self, session: AsyncSession) -> RunningJob:
        """The run, begun with the first thing found to do."""
        if self._run is None:
            self._run = await ledger.begin(session, job=JobName.SEND_REMINDERS, worker=self._worker, now=self._clock())
        return self._run

    async def _wake(self, emails: int) -> None:
        if emails and self._wake_sender:
            await self._wake_sender()
