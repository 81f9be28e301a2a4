"""Counters of the whole service, for Prometheus: added up by workers, read by the web's `/metrics`."""

from __future__ import annotations

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, table_arguments


class Metric(Base):
    """One time series: a counter's name and labels, and how far it has counted."""

    __tablename__ = "metric"
    __table_args__ = table_arguments()

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(String(200), primary_key=True)
    """As JSON, keys in order."""
    value: Mapped[float] = mapped_column(Double)
