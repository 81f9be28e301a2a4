"""The job `cleanup`: every hour, delete what has expired."""

from __future__ import annotations

from datetime import timedelta

from jobs.work import Work
from scheduler.cleanup.clean import clean_up
from scheduler.cleanup.files import clean_files
from scheduler.clock import now
from scheduler.runs.running import RunningJob


async def cleanup(work: Work, run: RunningJob) -> dict[str, int]:
    """A firing, or a run that somebody asked for."""
    retention = timedelta(days=work.settings.retention_days)
    rows = await clean_up(work.database, run=run, now=now(), retention=retention)
    return {**rows, **await clean_files(work.database, work.storage, now=now())}
