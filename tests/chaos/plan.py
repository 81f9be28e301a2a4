"""How much of what: one round of chaos, as it follows from its seed and its size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

JOBS, EMAILS = 3_000, 1_000
"""At least so many in a full round."""
CLIENT_FAULT_RATE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One round. Times are seconds."""

    seed: int
    seconds: float = 60.0
    """How long everything is tormented; it takes longer in all, as what is left must come to its end."""
    jobs: int = JOBS
    """Runs that create a task, asked for at once (there are more of them: by schedules, and cancelled ones)."""
    emails: int = EMAILS
    """Reminders that become due over the time, each with an e-mail."""
    requests: int = 120
    """Runs that send an HTTP request."""
    refused: float = 0.03
    """The part of these that the far end answers with 503: they are tried again some ten seconds later."""
    cancels: int = 100
    """Runs that are cancelled a moment after they are asked for."""
    queues: int = 4
    """Schedules whose runs wait for each other."""
    in_queue: int = 12
    """Firings of each of them, asked for at once."""
    minutely: int = 10
    """Schedules that fire each minute."""
    people: int = 250
    workers: int = 4
    concurrency: int = 25
    """Runs that a worker performs at once."""
    grace_s: int = 6
    client_fault_rate: float = CLIENT_FAULT_RATE
    """The part of the statements at the database client that goes wrong; of commits it is eight times that."""
    mean_between_worker_faults_s: float = 2.5
    mean_between_redis_faults_s: float = 4.0
    mean_between_database_kills_s: float = 14.0
    settle_s: float = 240.0
    """How long everything may take to come to its end once nothing goes wrong any more: on a machine that is busy with
    other things, the most of it is the work that was left over."""
    stall_s: float = 60.0
    """Within this time something more must have come to its end."""

    @property
    def hard_limit_s(self) -> float:
        """A round that takes longer has failed: starts and stops included."""
        return self.seconds + self.settle_s + 90

    def write(self, path: Path) -> None:
        """For another process of the round."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """As it was written."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
