"""Structured log records that are kept, so that a run's story can be read over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, Json


class LogRecord(Base):
    """One event. Its id is made when it happens, so ids order the records of a process."""

    __tablename__ = "log_record"
    __table_args__ = table_arguments(
        Index(None, "run_id", "id"),
        Index(None, "at"),
        Index(None, "level", "at"),
        Index(None, "event", "at"),
        Index(None, "job", "at"),
        Index(None, "user_id", "at"),
        Index(None, "request_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    level: Mapped[str] = mapped_column(String(16))
    event: Mapped[str] = mapped_column(String(200))
    logger: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(128))
    run_id: Mapped[UUID | None] = mapped_column(Id)
    job: Mapped[str | None] = mapped_column(String(64))
    user_id: Mapped[UUID | None] = mapped_column(Id)
    data: Mapped[Any] = mapped_column(Json, nullable=True)
