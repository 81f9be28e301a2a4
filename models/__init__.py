"""What is stored: columns, constraints, indexes. Nothing here decides."""

from models.account_export import AccountExport
from models.activity import Activity
from models.api_token import ApiToken
from models.base import Base
from models.delivery import Delivery
from models.email import Email
from models.idempotency_key import IdempotencyKey
from models.log_record import LogRecord
from models.login_failure import LoginFailure
from models.metric import Metric
from models.notification_preference import NotificationPreference
from models.one_time_token import OneTimeToken
from models.phone_code import PhoneCode
from models.reminder import Reminder
from models.run import Run, RunAttempt
from models.schedule import Schedule
from models.session import RefreshToken, Session
from models.task import Task, TaskAssignee, TaskShare
from models.two_factor import RecoveryCode
from models.user import User
from models.worker import Worker

__all__ = [
    "AccountExport",
    "Activity",
    "ApiToken",
    "Base",
    "Delivery",
    "Email",
    "IdempotencyKey",
    "LogRecord",
    "LoginFailure",
    "Metric",
    "NotificationPreference",
    "OneTimeToken",
    "PhoneCode",
    "RecoveryCode",
    "RefreshToken",
    "Reminder",
    "Run",
    "RunAttempt",
    "Schedule",
    "Session",
    "Task",
    "TaskAssignee",
    "TaskShare",
    "User",
    "Worker",
]
