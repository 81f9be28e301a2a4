"""Logging set up as a process of the service sets it up, into a text; then as it was."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from scheduler.logs import RecordKeeper, configure_logging, records
from scheduler.settings import Settings


@contextmanager
def process_logging(**settings: Any) -> Iterator[io.StringIO]:
    """The text that lines go to; the process's keeper of records is empty at first."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    with empty_keeper():
        configure_logging(Settings(**settings), stream=stream)
        try:
            yield stream
        finally:
            structlog.reset_defaults()
            root.handlers = handlers
            root.setLevel(level)


@contextmanager
def empty_keeper() -> Iterator[RecordKeeper]:
    """The process's keeper as if it were new; then as it was."""
    kept = dict(vars(records))
    vars(records).update(vars(RecordKeeper()))
    try:
        yield records
    finally:
        vars(records).update(kept)
