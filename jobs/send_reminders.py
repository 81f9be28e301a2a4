"""The job `send_reminders`: each second, fire what is due."""

from __future__ import annotations

from typing import Any

from jobs.work import Work


async def send_reminders(context: dict[str, Any]) -> None:
    """What arq calls."""
    work: Work = context["work"]
    await work.send_reminders()
