"""What a line looks like, and where it goes."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.processors import format_exc_info
from structlog.typing import EventDict, WrappedLogger

from scheduler.logs.keeping import is_kept, records
from scheduler.logs.redaction import redact
from scheduler.settings import Settings

_JSON = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry `logger: name`."""
    # Not bound as "logger": structlog has a parameter of that name.
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(logger_name=name))


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every line, ours and the libraries', to `stream` (standard output) in the format of the settings."""
    level = _LEVELS[settings.log_level]
    output = _Output(stream or sys.stdout)
    lines = _Lines(level=level, console=_console(output) if settings.log_format == "console" else None)
    structlog.configure(
        processors=[merge_contextvars, lines],
        # What is kept is kept whatever standard output is to show.
        wrapper_class=structlog.make_filtering_bound_logger(min(level, logging.INFO)),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_OfLibraries(lines, output)]
    # Libraries tell too much at "info" (arq: a line a job); what they warn of is worth a line.
    root.setLevel(max(level, logging.WARNING))


class _Lines:
    """Makes an event into a line: the last of structlog's processors. It never raises: a line that can't be made must
    not break what it tells of."""

    def __init__(self, *, level: int, console: structlog.dev.ConsoleRenderer | None) -> None:
        self._level = level
        self._console = console

    def __call__(self, _: WrappedLogger | None, level: str, event: EventDict) -> bytes:
        """The line of one of our events; raises DropEvent where it is only to be kept, or not even that."""
        line = self.line(level, event)
        if line is None:
            raise structlog.DropEvent
        return line

    def line(self, level: str, fields: EventDict, *, family: str | None = None) -> bytes | None:
        """`family`: what storms together; the event's name, where it is None."""
        at = datetime.now(UTC)
        event = fields["event"] = str(fields.get("event", ""))
        logger = fields.pop("logger_name", "")
        try:
            return self._line(at, level, event, logger, fields, family)
        except Exception as error:
            text = redact(None, "", {"event": event})["event"]
            stamp = at.isoformat().replace("+00:00", "Z")
            bare = {"timestamp": stamp, "level": level, "event": text, "logger": logger, "unloggable": str(type(error))}
            return json.dumps(bare).encode() + b"\n"

    def _line(
        self, at: datetime, level: str, event: str, logger: str, fields: EventDict, family: str | None
    ) -> bytes | None:
        is_shown = _LEVELS[level] >= self._level
        kept = is_kept(level, event, fields)
        if not is_shown and not kept:
            return None
        fields = dict(format_exc_info(None, level, fields))
        redact(None, level, fields)
        event = fields.pop("event")
        # Twice: they stand first, and no field of that name takes their place.
        own = {"timestamp": at, "level": level, "event": event, "logger": logger}
        record = {**own, **fields, **own}
        line = orjson.dumps(record, option=_JSON | orjson.OPT_APPEND_NEWLINE)
        if kept:
            records.keep(
                at=at, level=level, event=event, logger=logger, fields=fields, size=len(line), family=family or event
            )
        if not is_shown:
            return None
        if self._console is not None:
            record["timestamp"] = at.isoformat()
            return (str(self._console(None, level, record)) + "\n").encode()
        return line


def _console(output: _Output) -> structlog.dev.ConsoleRenderer:
    """For people; in colours where they look at a terminal."""
    return structlog.dev.ConsoleRenderer(colors=output.is_terminal and not os.environ.get("NO_COLOR"))


class _Output:
    """Where lines go, one at a time. A stream that is closed, full or gone is no error: there is nobody to tell."""

    def __init__(self, stream: TextIO) -> None:
        self._text = stream
        # Lines are bytes already; a stream without bytes below it is a test's.
        self._bytes: Any = getattr(stream, "buffer", None)
        self._lock = threading.Lock()

    @property
    def is_terminal(self) -> bool:
        """Whether a person may be looking."""
        return self._text.isatty()

    def write(self, line: bytes) -> None:
        """Write a line with its end, and flush it."""
        with self._lock, suppress(OSError, ValueError):
            if self._bytes is not None:
                self._bytes.write(line)
                self._bytes.flush()
            else:
                self._text.write(line.decode())

    debug = info = warning = error = critical = write


class _OfLibraries(logging.Handler):
    """Makes what libraries log into lines like ours."""

    def __init__(self, lines: _Lines, output: _Output) -> None:
        super().__init__()
        self._lines = lines
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # arguments that do not fit the message
            text = f"{record.msg} {record.args}"
        name = record.name.encode("utf-8", "replace").decode()
        fields = {**get_contextvars(), "event": text, "logger_name": name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        if record.stack_info:
            fields["stack"] = record.stack_info
        line = self._lines.line(_name_of(record.levelno), fields, family=name)
        if line is not None:
            self._output.write(line)


def _name_of(level: int) -> str:
    """The name of the greatest of our levels that is not above this one."""
    return next((name for name, own in reversed(_LEVELS.items()) if level >= own), "debug")
