"""What one run of the sender holds: its leases, its run, and the outcomes that wait to be settled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.database import Database, is_unavailable
from scheduler.logs import get_logger
from scheduler.metrics.runs import count_email
from scheduler.outbox.claim import (
    LEASE,
    ClaimedEmail,
    Failure,
    hand_back,
    keep_leases,
    settle_failures,
    settle_sent,
)
from scheduler.runs import ledger
from scheduler.runs.running import RunningJob

KEEP_EVERY_S = LEASE.total_seconds() / 3
SETTLE_PAUSE_S = 0.02
"""What is sent within this time is settled together: long enough for bulk, short enough to leave little in doubt."""
log = get_logger("emails")


class Batch:
    """Outcomes go in as they come (`sent`, `failed`) and are settled in bulk."""

    def __init__(
        self, database: Database, *, owner: UUID, clock: Callable[[], datetime], run: RunningJob | None = None
    ) -> None:
        self.owner = owner
        self.run = run
        self._ends_run = run is None
        self.counts = {"sent": 0, "deferred": 0, "dead": 0, "handed_back": 0, "lost": 0}
        self._database = database
        self._clock = clock
        self._sent: list[ClaimedEmail] = []
        self._failures: list[Failure] = []
        self._settling: list[ClaimedEmail] = []
        self._something = asyncio.Event()
        self._done = False
        self._is_over = False
        self._ours_until = time.monotonic() + LEASE.total_seconds()

    @property
    def is_surely_ours(self) -> bool:
        """Whether what `owner` holds can't have been given to another: by our own, monotonic clock, as the wall's may
        jump."""
        return time.monotonic() < self._ours_until

    def context(self) -> dict[str, Any]:
        """The fields of the run's records."""
        assert self.run is not None
        return self.run.log_context()

    def sent(self, email: ClaimedEmail) -> None:
        """A server took it."""
        self._sent.append(email)
        count_email("sent")
        self.counts["sent"] += 1
        self._something.set()

    def failed(self, failure: Failure, count: str) -> None:
        """It did not leave; `count` names what it counts as."""
        self._failures.append(failure)
        if count in ("deferred", "dead"):
            count_email(count)
        self.counts[count] += 1
        self._something.set()

    def lost(self) -> None:
        """The database was away for longer than a lease: somebody else may be at it by now."""
        self.counts["lost"] += 1

    def all_sent(self) -> None:
        """Nothing more will come."""
        self._done = True
        self._something.set()

    async def settle_as_they_come(self) -> None:
        """Settle until `all_sent` was called and all is settled."""
        while not self._done or self._sent or self._failures:
            await self._something.wait()
            if not self._done:
                await asyncio.sleep(SETTLE_PAUSE_S)
            self._something.clear()
            self._settling, self._sent = self._sent, []
            failures, self._failures = self._failures, []
            if self._settling or failures:
                await self._settle(self._settling, failures)
            self._settling = []
            if self._done:
                self._something.set()
        self._is_over = True

    async def keep_alive(self) -> None:
        """Keep the leases of the e-mails ahead, until all is settled."""
        # Not only until it is cancelled: some libraries lose a cancellation, and nothing here would ever end.
        while not self._is_over:
            await asyncio.sleep(KEEP_EVERY_S)
            with suppress(Exception):  # the next time, or never: then the leases run out, as they should
                asked_at = time.monotonic()
                async with self._database.write() as session:
                    now = self._clock()
                    await keep_leases(session, owner=self.owner, now=now)
                self._ours_until = asked_at + LEASE.total_seconds()

    async def record_success(self) -> None:
        """End the run, if it is the batch's own."""
        assert self.run is not None
        if not self._ends_run:
            return
        try:
            await ledger.succeed(self._database, run=self.run, result=self.counts, now=self._clock())
        except Exception as error:  # all is settled; only the run's own end is missing, and it is found lost
            log.warning("run.end_not_recorded", error=str(error)[:200], **self.context())

    async def record_failure(self, error: Exception) -> None:
        """Hand back what was not sent, and end the run; where the database fails too, leases run out instead."""
        kept = [email.id for email in (*self._settling, *self._sent)]  # sent, though not yet on record
        with suppress(Exception):
            async with self._database.write() as session:
                await hand_back(session, owner=self.owner, now=self._clock(), but=kept)
        if self.run is not None and self._ends_run:
            with suppress(Exception):
                await ledger.fail(self._database, run=self.run, error=error, now=self._clock())

    async def _settle(self, sent: list[ClaimedEmail], failures: list[Failure]) -> None:
        """Record outcomes, however long the database is away: what a server took must not be sent again."""

        async def work(session: AsyncSession) -> None:
            if sent:
                await settle_sent(session, emails=sent, now=self._clock())
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
