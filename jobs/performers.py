"""Which function performs the runs of which job."""

from __future__ import annotations

from jobs.cleanup import cleanup
from jobs.erase_accounts import erase_accounts
from jobs.export_account import export_account
from jobs.reap import perform_reap
from jobs.run_schedule import run_schedule
from jobs.send_emails import perform_send_emails
from jobs.send_password_reset import send_password_reset
from jobs.send_reminders import perform_send_reminders
from jobs.send_sms import send_sms
from jobs.work import Performer
from scheduler.runs.jobs import JobName

PERFORMERS: dict[str, Performer] = {
    JobName.SEND_REMINDERS: perform_send_reminders,
    JobName.SEND_EMAILS: perform_send_emails,
    JobName.REAP: perform_reap,
    JobName.RUN_SCHEDULE: run_schedule,
    JobName.SEND_PASSWORD_RESET: send_password_reset,
    JobName.SEND_SMS: send_sms,
    JobName.CLEANUP: cleanup,
    JobName.ERASE_ACCOUNTS: erase_accounts,
    JobName.EXPORT_ACCOUNT: export_account,
}
