"""Every job, declared once: what it does, when, for how long, and what happens when it fails.

The functions that do the work are bound to these names in the package `jobs`; the API only knows the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from models.schedule import Missed, Overlap
from scheduler.runs.backoff import Backoff

EVERY_SECOND = "* * * * * *"
"""With six fields, the first is the second (as CronSim reads it)."""
DEFAULT_QUEUE = "default"
SCHEDULES_QUEUE = "schedules"
QUEUES = (DEFAULT_QUEUE, SCHEDULES_QUEUE)
HIGH, NORMAL, LOW = 0, 1, 2
DEFAULT_RETRY = Backoff(base_s=1, cap_s=600)


class JobName(StrEnum):
    """The names, as the contract gives them."""

    SEND_REMINDERS = "send_reminders"
    SEND_EMAILS = "send_emails"
    RUN_SCHEDULE = "run_schedule"
    SEND_PASSWORD_RESET = "send_password_reset"
    SEND_SMS = "send_sms"
    CLEANUP = "cleanup"
    ERASE_ACCOUNTS = "erase_accounts"
    EXPORT_ACCOUNT = "export_account"
    REAP = "reap"


class NoArguments(BaseModel):
    """There is nothing to say to it."""

    # Clients see title and description of the schema.
    model_config = ConfigDict(extra="forbid", title="No arguments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is true of each run of a job."""

    name: str
    description: str
    cron: str | None = None
    """The default; operators change it in the job's schedule. None: it runs only when something asks for it."""
    timezone: str = "UTC"
    is_tick: bool = False
    """Every worker does it by itself at each firing, and a firing that finds nothing to do leaves no run."""
    timeout_s: float
    """Seconds that an attempt may take."""
    attempts: int = 1
    retry: Backoff = DEFAULT_RETRY
    overlap: Overlap = Overlap.SKIP
    missed: Missed = Missed.ONCE
    queue: str = DEFAULT_QUEUE
    priority: int = NORMAL
    is_unique: bool = False
    """While a run is unfinished, asking for another gives that one."""
    needs_schedule: bool = False
    """It does what a schedule says, so nobody can run it without one."""
    needs_request: bool = False
    """It does the rest of a person's request, so nobody can run it without one."""
    arguments: type[BaseModel] = NoArguments
    """What "run now" may be given."""


_DECLARED = (
    Job(
        name=JobName.SEND_REMINDERS,
        description="Fires the reminders that are due: each once, to whoever is to be told.",
        cron=EVERY_SECOND,
        is_tick=True,
        timeout_s=600,
        priority=HIGH,
    ),
    Job(
        name=JobName.SEND_EMAILS,
        description="Sends the e-mails that are to be tried now, in batches over kept connections.",
        cron=EVERY_SECOND,
        is_tick=True,
        timeout_s=600,
        priority=HIGH,
    ),
    Job(
        name=JobName.REAP,
        description="Gives back what dead workers held: reminders, e-mails and runs.",
        cron=EVERY_SECOND,
        is_tick=True,
        timeout_s=60,
        priority=HIGH,
    ),
    Job(
        name=JobName.RUN_SCHEDULE,
        description="Does what a person's schedule says: creates a task, or sends an HTTP request.",
        timeout_s=90,
        attempts=3,
        # The contract: the first retry after about 10 s. Full jitter below the bound, but not at once.
        retry=Backoff(base_s=12, cap_s=600, least_s=8),
        queue=SCHEDULES_QUEUE,
        needs_schedule=True,
    ),
    Job(
        name=JobName.SEND_PASSWORD_RESET,
        description="Writes the e-mail with the link to a new password, for who has forgotten theirs.",
        timeout_s=30,
        attempts=5,
        retry=Backoff(base_s=2, cap_s=60),
        priority=HIGH,
        needs_request=True,
    ),
    Job(
        name=JobName.SEND_SMS,
        description="Sends the code that confirms a telephone number, through the SMS gateway.",
        timeout_s=30,
        attempts=4,
        retry=Backoff(base_s=5, cap_s=60, least_s=2),
        priority=HIGH,
        needs_request=True,
    ),
    Job(
        name=JobName.CLEANUP,
        description="Deletes what has expired: tokens, sessions, old runs and records, the bin after 30 days.",
        cron="17 * * * *",
        timeout_s=3600,
        attempts=3,
        retry=Backoff(base_s=60, cap_s=600, least_s=5),
        priority=LOW,
        is_unique=True,
    ),
    Job(
        name=JobName.ERASE_ACCOUNTS,
        description="Erases the accounts that their owners gave up 14 days ago, and what is left of deleted ones.",
        cron="37 * * * *",
        timeout_s=3600,
        attempts=3,
        retry=Backoff(base_s=60, cap_s=600, least_s=5),
        is_unique=True,
    ),
    Job(
        name=JobName.EXPORT_ACCOUNT,
        description="Gathers all that is stored about a person into a ZIP, because they asked for it.",
        timeout_s=1800,
        attempts=3,
        retry=Backoff(base_s=10, cap_s=300, least_s=2),
        priority=LOW,
        needs_request=True,
    ),
)
JOBS: dict[str, Job] = {job.name: job for job in _DECLARED}
