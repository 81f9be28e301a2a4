"""What people did, and what happened to accounts and tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, Json


class Activity(Base):
    """One thing that one person (or the service: no actor) did to one thing."""

    __tablename__ = "activity"
    # Ids are made in the order of time.
    __table_args__ = table_arguments(Index(None, "actor_id", "id"), Index(None, "target_id", "id"))

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    actor_id: Mapped[UUID | None] = mapped_column(Id, ForeignKey("user.id", ondelete="SET NULL"))
    action: Mapped[str] = mapped_column(String(64))
    target_type: Mapped[str] = mapped_column(String(32))
    target_id: Mapped[UUID | None] = mapped_column(Id)
    ip: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(500))
    changes: Mapped[dict[str, list[Any]]] = mapped_column(Json)
    """`{field: [old, new]}`; never a secret."""
