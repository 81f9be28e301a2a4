"""The job `send_emails`: each second, and whenever e-mails were written here, send what is due."""

from __future__ import annotations

from typing import Any

from jobs.work import Work


async def send_emails(context: dict[str, Any]) -> None:
    """What arq calls."""
    work: Work = context["work"]
    await work.send_emails()
