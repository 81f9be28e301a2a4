"""The reaper: what dead workers held is given back, and their runs are ended as lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from scheduler.database import Database
from scheduler.outbox import claim as email_claims
from scheduler.outbox.claim import Lease
from scheduler.reminders import claim as reminder_claims
from scheduler.runs import ledger

WATCH_S = 4.0
"""How long an expired lease must stay as it is before it counts: longer than its sender takes to renew it."""


class Reaper:
    """Gives back expired leases of reminders and e-mails, and ends lost runs. Idempotent; one a process.

    The wall's clock may jump, and then every lease looks expired at once. A reminder's claim is fenced by its owner
    when
    it fires, so it is given back at once. An e-mail in flight has no such fence: its lease must be seen expired, and
    not
    renewed, over `WATCH_S` seconds of our own clock.
    """

    def __init__(self, database: Database, *, worker: str, seconds: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._worker = worker
        self._seconds = seconds
        self._suspects: dict[Lease, float] = {}

    async def reap(self, *, now: datetime) -> dict[str, int] | None:
        """Returns counts, or None when there was nothing to do (and then it is no run)."""
        async with self._database.write() as session:
            leases = await email_claims.expired_leases(session, now=now)
            counts = {
                "reminders": await reminder_claims.release_expired(session, now=now),
                "emails": await email_claims.release(session, leases=self._dead(leases)),
            }
        counts["runs"] = await ledger.reap_lost(self._database, now=now)
        if not any(counts.values()):
            return None
        async with self._database.write() as session:
            run = await ledger.begin(session, job=ledger.JobName.REAP, worker=self._worker, now=now)
        await ledger.succeed(self._database, run=run, result=counts, now=now)
        return counts

    def _dead(self, expired: set[Lease]) -> list[Lease]:
        """Those that have been on watch for long enough; the others go on watch."""
        present = self._seconds()
        self._suspects = {lease: self._suspects.get(lease, present) for lease in expired}
        return [lease for lease, since in self._suspects.items() if present - since >= WATCH_S]
