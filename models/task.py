"""Tasks, who they are assigned to, and who they are shared with."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, LongText


class Task(Base):
    """A task. `priority` is its rank (1 low … 4 urgent), so that the database sorts by it; `version` is its
    ETag."""

    __tablename__ = "task"
    __table_args__ = table_arguments(Index(None, "creator_id", "due_at"), Index(None, "deleted_at"))

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    creator_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id"))
    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(LongText)
    status: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(SmallInteger)
    category: Mapped[str | None] = mapped_column(String(50))
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    all_day: Mapped[bool]
    timezone: Mapped[str] = mapped_column(String(64))
    completed_at: Mapped[datetime | None] = mapped_column(Instant)
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    deleted_at: Mapped[datetime | None] = mapped_column(Instant)
    version: Mapped[int]


class TaskAssignee(Base):
    """One person to whom a task is assigned."""

    __tablename__ = "task_assignee"
    __table_args__ = table_arguments(Index(None, "user_id", "task_id"))

    task_id: Mapped[UUID] = mapped_column(Id, ForeignKey("task.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    assigned_at: Mapped[datetime] = mapped_column(Instant)


class TaskShare(Base):
    """One person with whom a task is shared, to `view` or to `edit`."""

    __tablename__ = "task_share"
    __table_args__ = table_arguments(Index(None, "user_id", "task_id"))

    task_id: Mapped[UUID] = mapped_column(Id, ForeignKey("task.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    permission: Mapped[str] = mapped_column(String(8))
    shared_at: Mapped[datetime] = mapped_column(Instant)
