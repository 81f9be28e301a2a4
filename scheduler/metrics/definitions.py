"""What is counted and measured: names, meanings, labels, buckets. The values of each label are few and known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """Something that is counted, and only ever becomes more."""

    name: str
    """Without `_total`."""
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Something that is measured, in seconds."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = _REQUEST_BUCKETS
    """Upper bounds, ascending; what is above them all is counted too."""


RUNS = Counter("punctual_runs", "Runs that have ended, by how.", ("job", "state"))
RETRIES = Counter("punctual_run_retries", "Attempts that failed and are followed by another.", ("job",))
LOST_ATTEMPTS = Counter("punctual_run_attempts_lost", "Attempts whose worker died or was cut off.", ("job",))
RUN_DURATION = Histogram(
    "punctual_run_duration_seconds",
    "From the beginning of a run's last attempt to its end.",
    ("job",),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)
RUN_LATENESS = Histogram(
    "punctual_run_lateness_seconds",
    "From when a run was to begin (scheduled, or asked for) to when its first attempt began.",
    ("job",),
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0),
)
EMAIL_ATTEMPTS = Counter(
    "punctual_email_attempts", "Attempts to send an e-mail, by their outcome: sent, deferred, dead.", ("outcome",)
)
WORKER_STALLS = Histogram(
    "punctual_worker_event_loop_stall_seconds",
    "Stalls of workers' event loops that took longer than 50 ms.",
    (),
    (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
LOG_RECORDS_DROPPED = Counter(
    "punctual_log_records_dropped",
    "Log records that were written out but not kept: full (the database was away), run (past what is kept of one run),"
    " repeated (past what is kept of one event a minute), refused (by the database).",
    ("reason",),
)
STORED: tuple[Counter | Histogram, ...] = (
    RUNS,
    RETRIES,
    LOST_ATTEMPTS,
    RUN_DURATION,
    RUN_LATENESS,
    EMAIL_ATTEMPTS,
    WORKER_STALLS,
    LOG_RECORDS_DROPPED,
)
"""Added up over all processes, in the database."""

REQUESTS = Counter(
    "punctual_http_requests", "Requests that this process answered.", ("method", "route", "status", "pid")
)
REQUEST_DURATION = Histogram(
    "punctual_http_request_duration_seconds",
    "From a request's head to the end of its answer, in this process.",
    ("method", "route", "pid"),
)
