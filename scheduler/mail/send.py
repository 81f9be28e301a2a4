"""Sending the outbox: claim → send with no transaction open → settle in bulk, all three under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from structlog.contextvars import bound_contextvars

from scheduler.clock import now as present
from scheduler.database import Database, is_unavailable
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.mail.breaker import Breaker
from scheduler.mail.claim import (
    BATCH,
    GIVE_UP_AFTER,
    LEASE,
    REFUSED,
    ClaimedEmail,
    Failure,
    claim_emails,
    hand_back,
    keep_leases,
    settle_failures,
    settle_sent,
)
from scheduler.mail.delivery import MailError, Refused, ServerUnavailable, Transport
from scheduler.mail.recheck import withdraw_outdated
from scheduler.runs import ledger
from scheduler.runs.backoff import Backoff
from scheduler.settings import Settings

# After a 4xx. RFC 5321, 4.5.4.1 asks for 30 minutes between tries and gives up after 4 to 5 days; greylisting
# opens
# after minutes, and a reminder is worth more when it is early, so ours begins at a minute and gives up after
# 3 days.
RETRY = Backoff(base_s=60, cap_s=3600, least_s=10)
SETTLE_PAUSE_S = 0.02
"""What is sent within this time is settled together: long enough for bulk, short enough to leave little in
doubt."""
log = get_logger("emails")


class Sender:
    """Sends what is due over one transport. One `run` at a time; one instance a process."""

    def __init__(
        self,
        database: Database,
        transport: Transport,
        *,
        settings: Settings,
        worker: str,
        clock: Callable[[], datetime] = present,
    ) -> None:
        self._database = database
        self._transport = transport
        self._settings = settings
        self._worker = worker
        self._clock = clock
        self._breaker = Breaker()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take nothing new; what is in the middle of being sent is finished, the rest handed back."""
        self._stopping.set()

    async def run(self) -> dict[str, int] | None:
        """Send until nothing is due. Returns counts, or None when nothing was due (and then it is no run)."""
        if self._stopping.is_set() or self._breaker.is_open(self._clock()):
            return None
        batch = _Batch(self._database, owner=new_id(), clock=self._clock)
        try:
            claimed = await self._claim(batch)
            if claimed is None:
                return None
            with bound_contextvars(**batch.context()):
                await self._send_all(batch, claimed)
        except Exception as error:
            await batch.record_failure(error)
            raise
        await batch.record_success()
        return batch.counts

    async def _claim(self, batch: _Batch) -> list[ClaimedEmail] | None:
        """The next e-mails to send; None when none is due, an empty list when all that were due have been
        withdrawn."""
        now = self._clock()
        if self._stopping.is_set() or self._breaker.is_open(now):
            return None
        limit = 1 if self._breaker.is_probing else BATCH
        async with self._database.write() as session:
            claimed = await claim_emails(session, owner=batch.owner, now=now, limit=limit)
            if not claimed:
                return None
            if batch.run is None:
                batch.run = await ledger.begin(session, job=ledger.JobName.SEND_EMAILS, worker=self._worker, now=now)
            return await withdraw_outdated(
                session, claimed, require_verified_email=self._settings.require_verified_email, now=now
            )

    async def _claim_more(self, batch: _Batch) -> list[ClaimedEmail] | None:
        """As `_claim`, but a database that has gone away only ends the claiming: what is in flight must still
        be settled."""
        try:
            return await self._claim(batch)
        except Exception as error:
            log.warning("emails.claim_failed", error=str(error)[:200])
            return None

    async def _send_all(self, batch: _Batch, claimed: list[ClaimedEmail] | None) -> None:
        """A claimer fills a queue, `connections` senders empty it, a settler records: each waits only for the
        other."""
        queue: asyncio.Queue[ClaimedEmail | None] = asyncio.Queue(maxsize=BATCH)
        senders = self._transport.connections
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(batch.keep_alive())
            settler = group.create_task(batch.settle_as_they_come())
            sending = [group.create_task(self._send_from(queue, batch)) for _ in range(senders)]
            while claimed is not None:
                for email in claimed:
                    await queue.put(email)
                claimed = await self._claim_more(batch)
            for _ in sending:
                await queue.put(None)
            await asyncio.gather(*sending)
            batch.all_sent()
            await settler
            keeper.cancel()

    async def _send_from(self, queue: asyncio.Queue[ClaimedEmail | None], batch: _Batch) -> None:
        while (email := await queue.get()) is not None:
            now = self._clock()
            if self._stopping.is_set():
                batch.failed(Failure(email.id, "", now, counts=False), "handed_back")
                continue
            if self._breaker.is_open(now):
                batch.failed(self._later(email, "the mail server is away", now), "deferred")
                continue
            try:
                await self._transport.send(email.envelope)
            except ServerUnavailable as error:
                self._breaker.failed(now)
                batch.failed(self._later(email, str(error), now), "deferred")
                log.warning("email.server_unavailable", email_id=str(email.id), error=str(error))
            except MailError as error:
                self._breaker.succeeded()
                self._not_taken(email, error, batch, now)
            except Exception as error:  # ours, not the server's: it must not hold up the others
                log.exception("email.send_crashed", email_id=str(email.id))
                batch.failed(self._again(email, f"{type(error).__name__}: {error}", now), "deferred")
            else:
                self._breaker.succeeded()
                batch.sent(email.id)

    def _not_taken(self, email: ClaimedEmail, error: MailError, batch: _Batch, now: datetime) -> None:
        """The server answered, and not with 250."""
        # A refusal of the sender is a fault of our settings, not of the message: it must not cost every
        # e-mail its life.
        if isinstance(error, Refused) and error.stage != "MAIL":
            batch.failed(Failure(email.id, str(error), None, counts=True, reason=REFUSED), "dead")
            log.warning("email.refused", email_id=str(email.id), error=str(error))
        else:
            batch.failed(self._again(email, str(error), now), "deferred")
            log.warning("email.deferred", email_id=str(email.id), error=str(error), attempts=email.attempts)

    def _again(self, email: ClaimedEmail, error: str, now: datetime) -> Failure:
        """After a refusal for now: later, with backoff, for three days."""
        if now - email.created_at > GIVE_UP_AFTER:
            return Failure(email.id, error, None, counts=True)
        return Failure(email.id, error, now + timedelta(seconds=RETRY.delay(email.attempts)), counts=True)

    def _later(self, email: ClaimedEmail, error: str, now: datetime) -> Failure:
        """The server is away: as soon as the breaker tries again, for three days; the try does not count."""
        if now - email.created_at > GIVE_UP_AFTER:
            return Failure(email.id, error, None, counts=False)
        return Failure(email.id, error, self._breaker.retry_at or now, counts=False)


class _Batch:
    """What one run of the sender holds: its lease, its run, and the outcomes that wait to be settled."""

    def __init__(self, database: Database, *, owner: UUID, clock: Callable[[], datetime]) -> None:
        self.owner = owner
        self.run: ledger.RunningJob | None = None
        self.counts = {"sent": 0, "deferred": 0, "dead": 0, "handed_back": 0}
        self._database = database
        self._clock = clock
        self._sent: list[UUID] = []
        self._failures: list[Failure] = []
        self._something = asyncio.Event()
        self._done = False

    def context(self) -> dict[str, Any]:
        assert self.run is not None
        return self.run.log_context()

    def sent(self, email_id: UUID) -> None:
        self._sent.append(email_id)
        self.counts["sent"] += 1
        self._something.set()

    def failed(self, failure: Failure, count: str) -> None:
        self._failures.append(failure)
        self.counts[count] += 1
        self._something.set()

    def all_sent(self) -> None:
        self._done = True
        self._something.set()

    async def settle_as_they_come(self) -> None:
        while not self._done or self._sent or self._failures:
            await self._something.wait()
            if not self._done:
                await asyncio.sleep(SETTLE_PAUSE_S)
            self._something.clear()
            sent, self._sent = self._sent, []
            failures, self._failures = self._failures, []
            if sent or failures:
                await self._settle(sent, failures)
            if self._done:
                self._something.set()

    async def _settle(self, sent: list[UUID], failures: list[Failure]) -> None:
        """Record outcomes, however long the database is away: what a server took must not be sent again."""

        async def work(session: Any) -> None:
            if sent:
                await settle_sent(session, ids=sent, now=self._clock())
            if failures:
                await settle_failures(session, failures=failures, owner=self.owner)

        while True:
            try:
                await self._database.retry_write(work)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.warning("emails.settle_waits_for_database", sent=len(sent), error=str(error)[:200])
                await asyncio.sleep(0.5)
            else:
                return

    async def keep_alive(self) -> None:
        """Keep the leases of the e-mails and of the run ahead."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            with suppress(Exception):  # the next time, or never: then the leases run out, as they should
                async with self._database.write() as session:
                    await keep_leases(session, owner=self.owner, now=self._clock())
                    if self.run is not None:
                        await ledger.keep(session, run=self.run, now=self._clock())

    async def record_success(self) -> None:
        assert self.run is not None
        try:
            await ledger.succeed(self._database, run=self.run, result=self.counts, now=self._clock())
        except Exception as error:  # all is settled; only the run's own end is missing, and it is reaped
            log.warning("run.end_not_recorded", error=str(error)[:200], **self.context())

    async def record_failure(self, error: Exception) -> None:
        with suppress(Exception):  # the database may be what failed; then leases run out and the run is reaped
            async with self._database.write() as session:
                await hand_back(session, owner=self.owner, now=self._clock())
            if self.run is not None:
                await ledger.fail(self._database, run=self.run, error=error, now=self._clock())
