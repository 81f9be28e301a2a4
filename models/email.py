"""The outbox of e-mails: each row is a message ready to be sent, byte for byte."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, MessageBytes


class EmailState(StrEnum):
    """Where an e-mail stands."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    DEAD = "dead"


class Email(Base):
    """One message to one address. Message-ID, Date and body are fixed here, so that a repeat is the same
    message."""

    __tablename__ = "email"
    __table_args__ = table_arguments(
        Index(None, "state", "next_attempt_at"),
        Index(None, "sent_at"),
        Index(None, "created_at"),
        Index(None, "state", "created_at"),
        Index(None, "user_id"),
    )

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    message_id: Mapped[str] = mapped_column(String(255), unique=True)
    user_id: Mapped[UUID | None] = mapped_column(Id)
    sender: Mapped[str] = mapped_column(String(254))
    recipient: Mapped[str] = mapped_column(String(254))
    subject: Mapped[str] = mapped_column(String(500))
    template: Mapped[str] = mapped_column(String(32))
    message: Mapped[bytes] = mapped_column(MessageBytes)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime] = mapped_column(Instant)
    owner: Mapped[UUID | None] = mapped_column(Id)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    sent_at: Mapped[datetime | None] = mapped_column(Instant)
    last_error: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(Instant)
