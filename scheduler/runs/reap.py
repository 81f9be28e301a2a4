"""The reaper: what dead workers held is given back: reminders, e-mails and runs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from scheduler.database import Database
from scheduler.outbox import claim as email_claims
from scheduler.outbox.claim import Lease
from scheduler.reminders import claim as reminder_claims
from scheduler.runs import ledger
from scheduler.runs.jobs import JobName
from scheduler.runs.recover import Watch, bury, recover_unbegun
from scheduler.runs.running import RunningJob

WATCH_S = 4.0
"""How long an expired lease must stay as it is before it counts: longer than its sender takes to renew it."""


class Reaper:
    """Gives back what nobody is at any longer. Idempotent; one a process, and any number of processes.

    The wall's clock may jump, and then every lease looks expired at once. A reminder's claim is fenced by its owner
    when it fires, so it is given back at once. An e-mail in flight has no such fence: its lease must be seen expired,
    and not renewed, over `WATCH_S` seconds of our own clock. A worker is dead when its beat has stood still on that
    same clock.
    """

    def __init__(self, database: Database, *, worker: str, seconds: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._worker = worker
        self._seconds = seconds
        self._suspects: dict[Lease, float] = {}
        self._watch = Watch(me=worker, seconds=seconds)

    async def reap(self, *, now: datetime, run: RunningJob | None = None) -> dict[str, int] | None:
        """Returns counts, or None when there was nothing to do (and then it is no run, unless there is one given)."""
        async with self._database.read() as session:
            leases = await email_claims.expired_leases(session, now=now)
            has_reminders = await reminder_claims.has_expired(session, now=now)
            workers, unbegun = await self._watch.look(session)
        counts = {
            "reminders": await self._write(reminder_claims.release_expired, now=now) if has_reminders else 0,
            "emails": await self._write(email_claims.release, leases=dead) if (dead := self._dead(leases)) else 0,
            "runs": await self._write(recover_unbegun, dispatched=unbegun) if unbegun else 0,
        }
        for worker in workers:
            counts["runs"] += await self._write(bury, dead=worker, now=now)
        if not any(counts.values()):
            return None
        if run is None:
            async with self._database.write() as session:
                run = await ledger.begin(session, job=JobName.REAP, worker=self._worker, now=now)
            await ledger.succeed(self._database, run=run, result=counts, now=now)
        return counts

    async def _write(self, work: Callable[..., Awaitable[int]], **arguments: Any) -> int:
        return await self._database.retry_write(lambda session: work(session, **arguments))

    def _dead(self, expired: set[Lease]) -> list[Lease]:
        """Those that have been on watch for long enough; the others go on watch."""
        present = self._seconds()
        self._suspects = {lease: self._suspects.get(lease, present) for lease in expired}
        return [lease for lease, since in self._suspects.items() if present - since >= WATCH_S]
