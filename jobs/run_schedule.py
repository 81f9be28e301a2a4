"""The job `run_schedule`: what a person's schedule says, each time that it fires."""

from __future__ import annotations

from typing import Any

from jobs.work import Work
from scheduler.runs.running import RunningJob
from scheduler.schedules.actions import perform_action


async def run_schedule(work: Work, run: RunningJob) -> dict[str, Any] | None:
    """A firing, or a run that somebody asked for."""
    return await perform_action(work.database, run=run, settings=work.settings, http=work.http)
