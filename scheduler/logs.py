"""Logs: structlog as JSON, one line an event, on standard output; records that belong to a run are also kept
for the database.

An event is a static string ("run.succeeded"); what varies is a field. Names of fields are the same
everywhere:
`run_id`, `job`, `attempt`, `trigger`, `request_id`, `user_id`, `duration_ms`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import deque
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, TextIO, cast
from uuid import UUID

import orjson
import structlog
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from structlog.typing import EventDict, Processor, WrappedLogger

from models import LogRecord
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.settings import Settings

# Words of a name, however it is spelled: secret_key, X-Api-Key, accessToken.
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_SECRET_NAME = re.compile(
    r"(?i)(^| )(password|passwd|secret|token|authorization|cookie|otp|api ?key|private key)s?($| )"
)
_SECRET_TEXT = re.compile(
    r"(?i)(eyJ[\w-]{8,}\.[\w-]+\.[\w-]+)"  # a JWT
    r"|((?<=://)[^/\s@]*:[^@\s/]*(?=@))"  # user:password@ in a URL
    r"|((?<=[?&]token=)[^&\s\"'<>]+)"  # in the links of e-mails
    r"|(\b(?:bearer|basic)\s+[\w.~+/=-]{8,})"
    r"|(\bpun_[\w-]{16,})"  # our own tokens
)
REDACTED = "[redacted]"
LONGEST_VALUE = 4000  # characters of one field
_SMALLEST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1  # what orjson writes
KEPT = 10_000  # records held for the database before new ones are dropped
AT_ONCE = 1000  # records of one INSERT


class RecordKeeper:
    """Holds the records of runs until `flush` stores them. Never blocks, never raises: a full keeper drops
    and counts."""

    def __init__(self) -> None:
        self._records: deque[dict[str, Any]] = deque()
        self.dropped = 0

    def keep(self, event: EventDict) -> None:
        """Take a copy of an event that belongs to a run."""
        if len(self._records) >= KEPT:
            self.dropped += 1
            return
        fields = dict(event)
        self._records.append(
            {
                "id": new_id(),
                "at": datetime.fromisoformat(fields.pop("timestamp")),
                "level": fields.pop("level", "info"),
                "event": str(fields.pop("event", ""))[:200],
                "logger": str(fields.pop("logger", ""))[:64],
                "request_id": fields.pop("request_id", None),
                "run_id": UUID(str(fields.pop("run_id"))),
                "job": fields.pop("job", None),
                "user_id": UUID(str(user_id)) if (user_id := fields.pop("user_id", None)) else None,
                "data": fields,
            }
        )

    async def flush(self, database: Database) -> int:
        """Store what is held, in bulk. What could not be stored stays held. Returns how many were stored."""
        batch = list(islice(self._records, AT_ONCE))
        if not batch:
            return 0
        try:
            async with database.write() as session:
                await session.execute(insert(LogRecord.__table__), batch)
        except IntegrityError:
            # An earlier flush landed though its answer was lost: what is there already is not stored again.
            async with database.write() as session:
                ids = [record["id"] for record in batch]
                stored = set((await session.execute(select(LogRecord.id).where(LogRecord.id.in_(ids)))).scalars())
                missing = [record for record in batch if record["id"] not in stored]
                if missing:
                    await session.execute(insert(LogRecord.__table__), missing)
        for _ in batch:
            self._records.popleft()
        return len(batch)


records = RecordKeeper()
"""The process's keeper: logging is process-wide, and so is this."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry `logger: name`."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(logger_name=name))


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every line, ours and the libraries', to `stream` (standard output) in the format of the
    settings."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_logger,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
        _keep_records_of_runs,
    ]
    output = stream or sys.stdout
    final: Processor = structlog.dev.ConsoleRenderer() if settings.log_format == "console" else _render_json
    structlog.configure(
        processors=[*shared, final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, final],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries tell too much at "info" (arq: a line a job); what they warn of is worth a line.
    root.setLevel(max(level, logging.WARNING))


def redact(_: WrappedLogger | None, __: str, event: EventDict) -> EventDict:
    """Hide what must not be logged, by the field's name and by the look of the text; cut what is too long.

    What comes out holds JSON's kinds only, and text that UTF-8 can hold: logging must never break what is logged.
    """
    for key, value in event.items():
        if key not in ("timestamp", "level"):
            event[key] = _redacted(key, value)
    return event


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(_WORD_BREAK.sub(" ", name)) is not None


def _redacted(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | float):
        return REDACTED if value is not None and _is_secret_name(key) else value
    if _is_secret_name(key):
        return REDACTED
    if isinstance(value, int):
        return value if _SMALLEST_INTEGER <= value <= _GREATEST_INTEGER else str(value)
    if isinstance(value, dict):
        return {_redacted_text("", str(inner)): _redacted(str(inner), each) for inner, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted("", each) for each in value]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return _redacted_text(key, str(value))


def _redacted_text(key: str, text: str) -> str:
    text = _SECRET_TEXT.sub(REDACTED, text)
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # lone surrogates
    if len(text) <= LONGEST_VALUE:
        return text
    # What a traceback says last is what it is about.
    return "…" + text[-LONGEST_VALUE:] if key in ("exception", "traceback") else text[:LONGEST_VALUE] + "…"


def _name_logger(_: WrappedLogger | None, __: str, event: EventDict) -> EventDict:
    # `get_logger` can't bind a value called "logger": structlog has a parameter of that name.
    if "logger_name" in event:
        event["logger"] = event.pop("logger_name")
    return event


def _keep_records_of_runs(_: WrappedLogger | None, __: str, event: EventDict) -> EventDict:
    if "run_id" in event:
        with suppress(Exception):  # an id that is none, say: the line is written all the same
            records.keep(event)
    return event


def _render_json(_: WrappedLogger | None, __: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
