"""The job `export_account`: all that is stored about a person, as a ZIP, because they asked for it."""

from __future__ import annotations

from typing import Any

from jobs.work import Work
from scheduler.accounts.export import make_export
from scheduler.runs.running import RunningJob


async def export_account(work: Work, run: RunningJob) -> dict[str, Any]:
    """A run that its owner asked for."""
    return await make_export(work.database, storage=work.storage, run=run)
