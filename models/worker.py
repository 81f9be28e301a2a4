"""Workers: who is at work, and since when nobody has heard of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments
from models.types import Instant, Json


class Worker(Base):
    """A process that takes runs. It counts its `beat` up while it lives; the row goes with the process.

    Others tell from `beat` standing still that it is dead, by their own monotonic clocks: no two machines' wall clocks
    are ever compared.
    """

    __tablename__ = "worker"
    __table_args__ = table_arguments()

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[str] = mapped_column(String(32))
    queues: Mapped[Any] = mapped_column(Json)
    concurrency: Mapped[int] = mapped_column(Integer)
    beat: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(Instant)
    heartbeat_at: Mapped[datetime] = mapped_column(Instant)
