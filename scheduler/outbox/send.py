"""Sending the outbox: claim → send with no transaction open → settle in bulk, all three under way at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from structlog.contextvars import bound_contextvars

from scheduler.clock import now as present
from scheduler.database import Database
from scheduler.logs import get_logger
from scheduler.mail.delivery import MailError, Refused, ServerUnavailable, Transport
from scheduler.outbox.batch import Batch
from scheduler.outbox.breaker import Breaker
from scheduler.outbox.claim import BATCH, GIVE_UP_AFTER, REFUSED, ClaimedEmail, Failure, claim_emails, hand_back
from scheduler.outbox.hand_over import HandOver
from scheduler.outbox.recheck import withdraw_outdated
from scheduler.runs import ledger
from scheduler.runs.backoff import Backoff
from scheduler.runs.jobs import JobName
from scheduler.runs.running import RunningJob
from scheduler.settings import Settings

# After a 4xx. RFC 5321, 4.5.4.1 asks for 30 minutes between tries and gives up after 4 to 5 days; greylisting
# opens
# after minutes, and a reminder is worth more when it is early, so ours begins at a minute and gives up after
# 3 days.
RETRY = Backoff(base_s=60, cap_s=3600, least_s=10)
IN_DOUBT = Backoff(base_s=5, cap_s=3600, least_s=1)
"""After a connection that was lost before the 250: most often the server was restarted, and has not kept it."""
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
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._transport = transport
        self._settings = settings
        self._worker = worker
        self._clock = clock
        self._breaker = Breaker(seconds)
        self._stopping = asyncio.Event()
        self.hand_over = HandOver()

    def stop(self) -> None:
        """Take nothing new; what is in the middle of being sent is finished, the rest handed back."""
        self._stopping.set()
        self.hand_over.is_open = False

    async def hand_back(self) -> None:
        """Give back what was handed over and not begun."""
        if len(self.hand_over):
            owner = self.hand_over.renew()
            async with self._database.write() as session:
                await hand_back(session, owner=owner, now=self._clock())

    async def run(self, run: RunningJob | None = None) -> dict[str, int] | None:
        """Send until nothing is due. Returns counts, or None when nothing was due (and then it is no run).

        `run` is one that somebody asked for, and ends.
        """
        self.hand_over.is_open = not self._stopping.is_set() and not self._breaker.is_probing
        if self._stopping.is_set() or self._breaker.is_open:
            await self.hand_back()
            return None
        batch = Batch(self._database, owner=self.hand_over.owner, clock=self._clock, run=run)
        try:
            claimed = await self._claim(batch)
            if claimed is None:
                return None
            with bound_contextvars(**batch.context()):
                await self._send_all(batch, claimed)
        except Exception as error:
            self.hand_over.renew()  # all that this owner holds is handed back
            await batch.record_failure(error)
            raise
        await batch.record_success()
        return batch.counts

    async def _claim(self, batch: Batch) -> list[ClaimedEmail] | None:
        """The next e-mails to send; None when none is due, an empty list when all that were due have been
        withdrawn."""
        if self._stopping.is_set() or self._breaker.is_open:
            return None
        limit = 1 if self._breaker.is_probing else BATCH
        async with self._database.write() as session:
            now = self._clock()
            claimed = await claim_emails(session, owner=batch.owner, now=now, limit=limit)
            if not claimed and not self.hand_over.has_any():
                return None
            if batch.run is None:
                batch.run = await ledger.begin(session, job=JobName.SEND_EMAILS, worker=self._worker, now=now)
            claimed = await withdraw_outdated(
                session, claimed, require_verified_email=self._settings.require_verified_email, now=now
            )
        # Only now, with the database's word: had it gone away, they would stay where they are.
        return self.hand_over.take(limit) + claimed

    async def _claim_more(self, batch: Batch) -> list[ClaimedEmail] | None:
        """As `_claim`, but a database that has gone away only ends the claiming: what is in flight must still
        be settled."""
        try:
            return await self._claim(batch)
        except Exception as error:
            log.warning("emails.claim_failed", error=str(error)[:200])
            return None

    async def _send_all(self, batch: Batch, claimed: list[ClaimedEmail] | None) -> None:
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

    async def _send_from(self, queue: asyncio.Queue[ClaimedEmail | None], batch: Batch) -> None:
        while (email := await queue.get()) is not None:
            now = self._clock()
            if not batch.is_surely_ours:
                batch.lost()
                continue
            if self._stopping.is_set():
                batch.failed(Failure(email.id, "", now, counts=False), "handed_back")
                continue
            if self._breaker.is_open:
                batch.failed(self._later(email, "the mail server is away", now), "deferred")
                continue
            try:
                await self._transport.send(email.envelope)
            except MailError as error:
                self._not_taken(email, error, batch, now)
            except Exception as error:  # ours, not the server's: it must not hold up the others
                log.exception("email.send_crashed", email_id=str(email.id))
                batch.failed(self._again(email, f"{type(error).__name__}: {error}", now), "deferred")
            else:
                self._breaker.succeeded()
                batch.sent(email)

    def _not_taken(self, email: ClaimedEmail, error: MailError, batch: Batch, now: datetime) -> None:
        """No 250 came."""
        fields = {"email_id": str(email.id), "error": str(error), "attempts": email.attempts}
        if isinstance(error, ServerUnavailable) and not error.may_have_arrived:
            self._breaker.failed()
            batch.failed(self._later(email, str(error), now), "deferred")
            log.warning("email.server_unavailable", **fields)
            return
        # Lost after its last byte: the server may have it, and be slow with this one message only. Others go on, and
        # the next copy waits as after a refusal, lest somebody gets one each time that the breaker tries.
        if not isinstance(error, ServerUnavailable):
            self._breaker.succeeded()
        # A refusal of the sender is a fault of our settings, not of the message: it must not cost every e-mail its
        # life.
        if isinstance(error, Refused) and error.stage != "MAIL":
            batch.failed(Failure(email.id, str(error), None, counts=True, reason=REFUSED), "dead")
            log.warning("email.refused", **fields)
        else:
            backoff = IN_DOUBT if isinstance(error, ServerUnavailable) else RETRY
            batch.failed(self._again(email, str(error), now, backoff), "deferred")
            log.warning("email.deferred", **fields)

    def _again(self, email: ClaimedEmail, error: str, now: datetime, backoff: Backoff = RETRY) -> Failure:
        """After a refusal for now: later, with backoff, for three days."""
        if now - email.created_at > GIVE_UP_AFTER:
            return Failure(email.id, error, None, counts=True)
        return Failure(email.id, error, now + timedelta(seconds=backoff.delay(email.attempts)), counts=True)

    def _later(self, email: ClaimedEmail, error: str, now: datetime) -> Failure:
        """The server is away: as soon as the breaker tries again, for three days; the try does not count."""
        if now - email.created_at > GIVE_UP_AFTER:
            return Failure(email.id, error, None, counts=False)
        return Failure(email.id, error, now + timedelta(seconds=self._breaker.wait_s), counts=False)
