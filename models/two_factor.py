"""Two-factor sign-in: the codes for when the device is lost. The secret stands in the person's row."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Digest, Id, Instant


class RecoveryCode(Base):
    """A recovery code by its digest; a used one is kept until there are new ones."""

    __tablename__ = "recovery_code"
    __table_args__ = table_arguments()

    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(Digest, primary_key=True)
    used_at: Mapped[datetime | None] = mapped_column(Instant)
