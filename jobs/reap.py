"""The job `reap`: each second, give back what dead workers held."""

from __future__ import annotations

from typing import Any

from jobs.work import Work
from scheduler.runs.running import RunningJob


async def reap(context: dict[str, Any]) -> None:
    """What arq calls each second."""
    work: Work = context["work"]
    await work.reap()


async def perform_reap(work: Work, run: RunningJob) -> dict[str, Any] | None:
    """A run that somebody asked for."""
    return await work.perform_reap(run)
