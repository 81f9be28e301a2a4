"""Which function performs the runs of which job."""

from __future__ import annotations

from jobs.cleanup import cleanup
from jobs.reap import perform_reap
from jobs.run_schedule import run_schedule
from jobs.send_emails import perform_send_emails
from jobs.send_reminders import perform_send_reminders
from jobs.work import Performer
from scheduler.runs.jobs import JobName

PERFORMERS: dict[str, Performer] = {
    JobName.SEND_REMINDERS: perform_send_reminders,
    JobName.SEND_EMAILS: perform_send_emails,
    JobName.REAP: perform_reap,
    JobName.RUN_SCHEDULE: run_schedule,
    JobName.CLEANUP: cleanup,
}
