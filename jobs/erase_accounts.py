"""The job `erase_accounts`: every hour, and when somebody was deleted, erase what is to be erased of people."""

from __future__ import annotations

from jobs.work import Work
from scheduler.accounts.erasure import erase_accounts as erase
from scheduler.clock import now
from scheduler.runs.running import RunningJob


async def erase_accounts(work: Work, run: RunningJob) -> dict[str, int]:
    """A firing, or a run that somebody asked for."""
    return await erase(work.database, storage=work.storage, run=run, now=now())
