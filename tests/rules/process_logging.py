"""Logging set up as a process of the service sets it up, into a text; then as it was."""

from __future__ import annotations

import io
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from scheduler.logs import configure_logging, records
from scheduler.settings import Settings


@contextmanager
def process_logging() -> Iterator[io.StringIO]:
    """The text that lines go to; the process's keeper of records is empty at first."""
    root = logging.getLogger()
    handlers, level, kept = root.handlers, root.level, records._records
    stream = io.StringIO()
    records._records = deque()
    configure_logging(Settings(), stream=stream)
    try:
        yield stream
    finally:
        structlog.reset_defaults()
        root.handlers = handlers
        root.setLevel(level)
        records._records = kept
