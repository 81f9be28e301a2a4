"""The job `send_password_reset`: the link to a new password, for who has forgotten theirs."""

from __future__ import annotations

from typing import Any

from jobs.work import Work
from scheduler.accounts import password_reset
from scheduler.runs.running import RunningJob


async def send_password_reset(work: Work, run: RunningJob) -> dict[str, Any]:
    """A run that somebody's request asked for."""
    return await password_reset.send_password_reset(work.database, run=run, settings=work.settings)
