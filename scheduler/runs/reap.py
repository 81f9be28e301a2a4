"""The reaper: what dead workers held is given back, and their runs are ended as lost."""

from __future__ import annotations

from datetime import datetime

from scheduler.database import Database
from scheduler.logs import get_logger
from scheduler.mail import claim as email_claims
from scheduler.reminders import claim as reminder_claims
from scheduler.runs import ledger

log = get_logger("reap")


async def reap(database: Database, *, worker: str, now: datetime) -> dict[str, int] | None:
    """Give back expired leases of reminders and e-mails, and end lost runs. Idempotent.

    Returns counts, or None when there was nothing to do (and then it is no run).
    """
    async with database.write() as session:
        counts = {
            "reminders": await reminder_claims.release_expired(session, now=now),
            "emails": await email_claims.release_expired(session, now=now),
        }
    counts["runs"] = await ledger.reap_lost(database, now=now)
    if not any(counts.values()):
        return None
    async with database.write() as session:
        run = await ledger.begin(session, job=ledger.JobName.REAP, worker=worker, now=now)
    await ledger.succeed(database, run=run, result=counts, now=now)
    return counts
