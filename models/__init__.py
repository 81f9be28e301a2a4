"""What is stored: columns, constraints, indexes. Nothing here decides."""

from models.base import Base
from models.delivery import Delivery
from models.email import Email
from models.log_record import LogRecord
from models.metric import Metric
from models.notification_preference import NotificationPreference
from models.one_time_token import OneTimeToken
from models.reminder import Reminder
from models.run import Run, RunAttempt
from models.schedule import Schedule
from models.session import RefreshToken, Session
from models.task import Task, TaskAssignee
from models.user import User
from models.worker import Worker

__all__ = [
    "Base",
    "Delivery",
    "Email",
    "LogRecord",
    "Metric",
    "NotificationPreference",
    "OneTimeToken",
    "RefreshToken",
    "Reminder",
    "Run",
    "RunAttempt",
    "Schedule",
    "Session",
    "Task",
    "TaskAssignee",
    "User",
    "Worker",
]
