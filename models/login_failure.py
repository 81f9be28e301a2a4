"""Failed logins, for the lock of an account's password login."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Digest, Id, Instant


class LoginFailure(Base):
    """One failed login for one address, whether or not there is an account of it: both cost the same."""

    __tablename__ = "login_failure"
    __table_args__ = table_arguments(Index(None, "address_digest", "at"), Index(None, "at"))

    id: Mapped[UUID] = mapped_column(Id, primary_key=True)
    address_digest: Mapped[bytes] = mapped_column(Digest)
    """Of the address as it is compared: what strangers type is not kept."""
    at: Mapped[datetime] = mapped_column(Instant)
