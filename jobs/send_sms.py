"""The job `send_sms`: send the code by which a person confirms a telephone number."""

from __future__ import annotations

from typing import Any

from jobs.work import Work
from scheduler.accounts.phone import send_code
from scheduler.runs.running import RunningJob


async def send_sms(work: Work, run: RunningJob) -> dict[str, Any]:
    """A run that a person's request asked for."""
    return await send_code(work.database, run=run, settings=work.settings)
