"""What is stored: columns, constraints, indexes. Nothing here decides."""

from models.base import Base
from models.delivery import Delivery
from models.email import Email
from models.log_record import LogRecord
from models.notification_preference import NotificationPreference
from models.one_time_token import OneTimeToken
from models.reminder import Reminder
from models.run import Run
from models.session import RefreshToken, Session
from models.task import Task, TaskAssignee
from models.user import User

__all__ = [
    "Base",
    "Delivery",
    "Email",
    "LogRecord",
    "NotificationPreference",
    "OneTimeToken",
    "RefreshToken",
    "Reminder",
    "Run",
    "Session",
    "Task",
    "TaskAssignee",
    "User",
]
