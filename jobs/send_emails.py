"""The job `send_emails`: each second, and whenever e-mails were written here, send what is due."""

from __future__ import annotations

from typing import Any

from jobs.work import Work
from scheduler.runs.running import RunningJob


async def send_emails(context: dict[str, Any]) -> None:
    """What arq calls each second."""
    work: Work = context["work"]
    await work.send_emails()


async def perform_send_emails(work: Work, run: RunningJob) -> dict[str, Any] | None:
    """A run that somebody asked for."""
    return await work.perform_send_emails(run)
