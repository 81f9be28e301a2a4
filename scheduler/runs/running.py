"""A run that this process is at, and what whoever performs it may say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

LONGEST_RESULT = 256 * 1024
"""Bytes of JSON that a run keeps as its result."""


AT_WORK: set[tuple[UUID, int]] = set()
"""The attempts that this process is at, or whose end it is still to write, as `RunningJob.key`. What the database says
of its worker and is not in here, nobody is at."""
MOST_PROGRESS = 2**63 - 1  # BIGINT


class JobFailed(Exception):
    """The job did not do what it is for; the message is for whoever asked for it.

    `result` is kept in the run all the same; `permanent`: no other attempt would fare better.
    """

    def __init__(self, message: str, *, result: dict[str, Any] | None = None, permanent: bool = False) -> None:
        super().__init__(message)
        self.result = result
        self.permanent = permanent


class RunTaken(Exception):
    """This run is no longer ours: it was given to another worker, cancelled or ended meanwhile."""


@dataclass(slots=True, kw_only=True)
class RunningJob:
    """One attempt at a run. `worker` and `seq` fence every write of its outcome."""

    id: UUID
    job: str
    trigger: str
    attempt: int
    started_at: datetime
    worker: str
    seq: int = 1
    max_attempts: int = 1
    owner_id: UUID | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    schedule_id: UUID | None = None
    scheduled_for: datetime | None = None
    queued_at: datetime | None = None
    request_id: str | None = None
    progress_done: int = 0
    progress_total: int = 0
    is_settled: bool = False
    """Its end is on record already, in the transaction of its effect."""

    @property
    def key(self) -> tuple[UUID, int]:
        """This attempt, and no other at the same run."""
        return self.id, self.seq

    def report_progress(self, done: int, total: int) -> None:
        """Say how far it has come; stored within about a second."""
        # What the database would refuse must not keep the worker's beats from it.
        self.progress_done, self.progress_total = (max(0, min(int(each), MOST_PROGRESS)) for each in (done, total))

    def log_context(self) -> dict[str, Any]:
        """The fields that each record of the run carries."""
        context: dict[str, Any] = {
            "run_id": str(self.id),
            "job": self.job,
            "trigger": self.trigger,
            "attempt": self.attempt,
        }
        if self.request_id is not None:
            context["request_id"] = self.request_id
        if self.owner_id is not None:
            context["user_id"] = str(self.owner_id)
        return context
