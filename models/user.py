"""People."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Id, Instant, LongText


class AccountStatus(StrEnum):
    """Where an account stands. To clients `deleting` is `deactivated`, and an erased one is not there."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    """By its owner or an administrator; only an administrator brings it back."""
    DELETING = "deleting"
    """Its owner asked for it to be deleted; signing in before the grace period ends takes that back."""
    ERASED = "erased"
    """What identified the person is gone; the row stays because others' tasks and comments point at it."""


class User(Base):
    """A person with an account. `email` is stored trimmed and in lower case: it is compared without case."""

    __tablename__ = "user"
    __table_args__ = table_arguments(Index(None, "status", "name_folded"), Index(None, "deletion_requested_at"))

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str | None] = mapped_column(String(255))
    email_verified_at: Mapped[datetime | None] = mapped_column(Instant)
    phone: Mapped[str | None] = mapped_column(String(16))
    phone_verified_at: Mapped[datetime | None] = mapped_column(Instant)
    bio: Mapped[str] = mapped_column(LongText)
    timezone: Mapped[str] = mapped_column(String(64))
    locale: Mapped[str] = mapped_column(String(35))
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    name_folded: Mapped[str] = mapped_column(String(600), server_default=text("''"))
    """The name as it is searched: `scheduler.accounts.names.folded` of it."""
    avatar_key: Mapped[str | None] = mapped_column(String(64))
    """Of the picture in the storage; another with each upload, so that its address can be cached for good."""
    totp_secret: Mapped[str | None] = mapped_column(String(255))
    """Encrypted; there from the moment two-factor sign-in is asked for."""
    totp_enabled_at: Mapped[datetime | None] = mapped_column(Instant)
    """When its first code was confirmed: from then on sign-in needs one."""
    totp_last_step: Mapped[int | None] = mapped_column(BigInteger)
    """The time step (RFC 6238, 4.2) of the last code taken: a code of this step or before works no more."""
    deletion_requested_at: Mapped[datetime | None] = mapped_column(Instant)
    """Also while an administrator has deactivated the account since: it goes all the same. Of an erased one: since when
    it is, until all that it left behind is gone."""
