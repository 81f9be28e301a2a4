"""Logs: structlog as JSON, one line an event, on standard output; what operators look for later is also kept in the
database.

An event is a static string ("run.succeeded"); what varies is a field. Names of fields are the same everywhere:
`run_id`, `job`, `attempt`, `trigger`, `request_id`, `user_id`, `duration_ms`.

Kept are the events with a `run_id`, those whose name begins with `security.`, and every warning, error and critical
one, of libraries too. PUNCTUAL_LOG_LEVEL says what is written to standard output; what is kept of "info" and above is
kept whatever it says.

- output: what a line looks like and where it goes
- redaction, look: what must not be in it
- keeping: what is held for the database, and how it gets there
- read: what operators ask of it (imported by itself)
"""

from scheduler.logs.keeping import FINAL_EVENTS, RecordKeeper, records, store_records
from scheduler.logs.look import E_MAIL, PHONE, REDACTED
from scheduler.logs.output import configure_logging, get_logger
from scheduler.logs.redaction import LONGEST_VALUE, redact

__all__ = [
    "E_MAIL",
    "FINAL_EVENTS",
    "LONGEST_VALUE",
    "PHONE",
    "REDACTED",
    "RecordKeeper",
    "configure_logging",
    "get_logger",
    "records",
    "redact",
    "store_records",
]
