"""What is held for the database, and how it gets there. Keeping never blocks and never raises; storing goes on beside
the work, and waits while the database is away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import structlog
from sqlalchemy import DateTime, LargeBinary, String, Text, bindparam, insert, select, type_coerce
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.types import TypeEngine
from uuid_utils import uuid7

from models import LogRecord
from scheduler.database import Database, is_retryable, is_unavailable
from scheduler.storing import keep_storing

KEPT = 10_000
"""Records held before new ones are dropped."""
FINALS_KEPT = 3 * KEPT
"""Held before even the last record of a run is dropped."""
BYTES_KEPT = 32 * 1024 * 1024
"""As JSON; finals may take twice as much."""
KEPT_OF_A_RUN = 500
"""Records of one run; its last one is kept all the same."""
KEPT_A_MINUTE = 60
"""Of one event outside of runs: a database that is away warns many times a second, and says the same each time."""
SECURITY_KEPT_A_MINUTE = 3000
AT_ONCE, BYTES_AT_ONCE = 500, 2 * 1024 * 1024  # of one INSERT
FLUSH_EVERY_S = 0.5
TELL_EVERY_S = 60.0

FINAL_EVENTS = frozenset({"run.succeeded", "run.failed", "run.cancelled", "run.lost", "run.skipped"})
SECURITY = "security."
_WARNINGS = frozenset({"warning", "error", "critical"})
_RUNS_COUNTED = 20_000
_FAMILIES_COUNTED = 1000
_MINUTE_S = 60.0
_COLUMNS = frozenset({"request_id", "run_id", "job", "user_id"})
_CONTEXT = ("run_id", "job", "trigger", "attempt", "request_id", "user_id")


def is_kept(level: str, event: str, fields: Mapping[str, Any]) -> bool:
    """Whether an event goes to the database: of a run, of security, or a warning and above."""
    return fields.get("run_id") is not None or level in _WARNINGS or event.startswith(SECURITY)


class _Record(NamedTuple):
    id: bytes
    at: datetime
    level: str
    event: str
    logger: str
    fields: Mapping[str, Any]
    size: int


class RecordKeeper:
    """Holds records until `flush` stores them. What there is no room for is dropped, and counted in `dropped`."""

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self.dropped = {"full": 0, "run": 0, "repeated": 0, "refused": 0}
        """Why: no room (the database is away), past what is kept of one run, past what is kept of one event a minute,
        or the database would not have it."""
        self._seconds = seconds
        self._records: deque[_Record] = deque()
        self._size = 0
        self._of_runs: dict[str, int] = {}
        self._of_families: dict[str, int] = {}
        self._minute_began = seconds()

    def __len__(self) -> int:
        """How many records are held."""
        return len(self._records)

    def keep(
        self,
        *,
        at: datetime,
        level: str,
        event: str,
        logger: str,
        fields: dict[str, Any],
        size: int,
        family: str,
    ) -> None:
        """Hold a record of JSON's kinds only, which is `size` bytes long; it is the keeper's from now on.

        `family`: what it is counted with when it is of no run.
        """
        most, most_bytes = KEPT, BYTES_KEPT
        run_id = fields.get("run_id")
        if run_id is None:
            if not self._is_rare(family):
                return
        elif event in FINAL_EVENTS:
            self._of_runs.pop(run_id, None)
            most, most_bytes = FINALS_KEPT, 2 * BYTES_KEPT
        elif not self._is_within_run(run_id, at, logger, fields):
            return
        if len(self._records) >= most or self._size + size > most_bytes:
            self.dropped["full"] += 1
            return
        self._append(at, level, event, logger, fields, size)

    def _append(self, at: datetime, level: str, event: str, logger: str, fields: Mapping[str, Any], size: int) -> None:
        self._records.append(_Record(uuid7().bytes, at, level, event, logger, fields, size))
        self._size += size

    def _is_within_run(self, run_id: str, at: datetime, logger: str, fields: Mapping[str, Any]) -> bool:
        counts = self._of_runs
        count = counts[run_id] = counts.get(run_id, 0) + 1
        if count <= KEPT_OF_A_RUN:
            if len(counts) > _RUNS_COUNTED:  # runs that ended elsewhere
                with suppress(KeyError, RuntimeError):
                    del counts[next(iter(counts))]
            return True
        self.dropped["run"] += 1
        if count == KEPT_OF_A_RUN + 1:
            said = {name: fields[name] for name in _CONTEXT if name in fields}
            self._append(at, "warning", "run.records_truncated", logger, said | {"kept": KEPT_OF_A_RUN}, 200)
        return False

    def _is_rare(self, family: str) -> bool:
        if self._seconds() - self._minute_began >= _MINUTE_S:
            self._end_minute()
        counts = self._of_families
        if family not in counts and len(counts) >= _FAMILIES_COUNTED:
            family = "others"
        count = counts[family] = counts.get(family, 0) + 1
        if count <= _most(family):
            return True
        self.dropped["repeated"] += 1
        return False

    def _end_minute(self) -> None:
        """Say how often each event came that was no longer kept, and count anew."""
        counts, self._of_families = self._of_families, {}
        self._minute_began = self._seconds()
        for family, count in counts.items():
            if count > _most(family):
                fields = {"of": family, "count": count - _most(family)}
                self._append(datetime.now(UTC), "warning", "logs.repeated", "logs", fields, 200)

    async def flush(self, database: Database) -> int:
        """Store some of what is held, in bulk; 0 once nothing is left. What could not be stored stays held.

        Raises what the database raises.
        """
        if self._of_families and self._seconds() - self._minute_began >= _MINUTE_S:
            self._end_minute()
        batch = self._oldest()
        if not batch:
            return 0
        await self._store(database, [_row(record) for record in batch])
        stored = {record.id for record in batch}
        # Whoever flushed at the same time may have taken them away already.
        while self._records and self._records[0].id in stored:
            self._size -= self._records.popleft().size
        return len(batch)

    def _oldest(self) -> list[_Record]:
        batch: list[_Record] = []
        size = 0
        for record in self._records:
            size += record.size
            if batch and (len(batch) == AT_ONCE or size > BYTES_AT_ONCE):
                break
            batch.append(record)
        return batch

    async def _store(self, database: Database, rows: Sequence[dict[str, Any]]) -> None:
        """Insert these; what the database will not have is given up, and does not hold up the others."""
        try:
            await _insert(database, rows)
        except DBAPIError as error:
            if is_unavailable(error) or is_retryable(error):
                raise
            if len(rows) == 1:
                self.dropped["refused"] += 1
                return
            half = len(rows) // 2
            await self._store(database, rows[:half])
            await self._store(database, rows[half:])


def _most(family: str) -> int:
    return SECURITY_KEPT_A_MINUTE if family.startswith(SECURITY) else KEPT_A_MINUTE


async def _insert(database: Database, rows: Sequence[dict[str, Any]]) -> None:
    try:
        async with database.write() as session:
            await (await session.connection()).execute(_INSERT, rows)
    except IntegrityError:
        # An earlier flush landed though its answer was lost: what is there already is not stored again.
        async with database.write() as session:
            connection = await session.connection()
            found = await connection.execute(_STORED, {"ids": [row["id"] for row in rows]})
            stored = {bytes(each) for each in found.scalars()}
            if missing := [row for row in rows if row["id"] not in stored]:
                await connection.execute(_INSERT, missing)


def _row(record: _Record) -> dict[str, Any]:
    fields = record.fields
    run_id, user_id = _id(fields.get("run_id")), _id(fields.get("user_id"))
    data = {name: value for name, value in fields.items() if name not in _COLUMNS}
    if run_id is None and fields.get("run_id") is not None:
        data["run_id"] = fields["run_id"]
    if user_id is None and fields.get("user_id") is not None:
        data["user_id"] = fields["user_id"]
    if len(record.event) > _LONGEST["event"]:
        data["message"] = record.event
    return {
        "id": record.id,
        "at": record.at.replace(tzinfo=None),
        "level": record.level,
        "event": record.event[: _LONGEST["event"]],
        "logger": record.logger[: _LONGEST["logger"]],
        "request_id": _text(fields, "request_id"),
        "run_id": run_id,
        "job": _text(fields, "job"),
        "user_id": user_id,
        "data": orjson.dumps(data).decode(),
    }


def _id(text: Any) -> bytes | None:
    """The id that a field spells, or None where it spells none."""
    if text is None:
        return None
    try:
        made = bytes.fromhex(text.replace("-", ""))
    except (ValueError, AttributeError):
        return None
    return made if len(made) == 16 else None


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return None if value is None else str(value)[: _LONGEST[name]]


async def store_records(database: Database) -> None:
    """Store what this process keeps, until cancelled; then what is left, for a second or two at the most.

    A process runs one of these beside its work. While the database is away, records wait.
    """
    log = structlog.get_logger(logger_name="logs")
    told, told_at = 0, time.monotonic()

    async def store() -> None:
        nonlocal told, told_at
        while await records.flush(database):
            pass
        dropped = sum(records.dropped.values())
        if dropped > told and time.monotonic() - told_at >= TELL_EVERY_S:
            log.warning("logs.records_dropped", **records.dropped)
            told, told_at = dropped, time.monotonic()

    await keep_storing(store, every_s=FLUSH_EVERY_S)


_TABLE = LogRecord.__table__
_LONGEST = {column.name: column.type.length or 0 for column in _TABLE.columns if isinstance(column.type, String)}
# With the plainest types: the values are made as the drivers take them.
_ID = LargeBinary(16)
_TYPES: dict[str, TypeEngine[Any]] = {
    "id": _ID,
    "at": DateTime(),
    "level": String(),
    "event": String(),
    "logger": String(),
    "request_id": String(),
    "run_id": _ID,
    "job": String(),
    "user_id": _ID,
    "data": Text(),
}
_INSERT = insert(_TABLE).values({name: bindparam(name, type_=kind) for name, kind in _TYPES.items()})
_STORED = select(type_coerce(_TABLE.c.id, _ID)).where(
    type_coerce(_TABLE.c.id, _ID).in_(bindparam("ids", expanding=True, type_=_ID))
)

records = RecordKeeper()
"""The process's keeper: logging is process-wide, and so is this."""
