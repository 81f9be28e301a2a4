"""The job `reap`: every five seconds, give back what dead workers held."""

from __future__ import annotations

from typing import Any

from jobs.work import Work


async def reap(context: dict[str, Any]) -> None:
    """What arq calls."""
    work: Work = context["work"]
    await work.reap()
