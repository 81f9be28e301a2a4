"""The job `send_reminders`: each second, fire what is due."""

from __future__ import annotations

from typing import Any

from jobs.work import Work
from scheduler.runs.running import RunningJob


async def send_reminders(context: dict[str, Any]) -> None:
    """What arq calls each second."""
    work: Work = context["work"]
    await work.send_reminders()


async def perform_send_reminders(work: Work, run: RunningJob) -> dict[str, Any] | None:
    """A run that somebody asked for."""
    return await work.perform_send_reminders(run)
