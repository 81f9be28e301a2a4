"""Settling runs: the outcome of an attempt is decided once, and written once, in bulk."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import bindparam, select, text, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, RunAttempt
from models.run import UNFINISHED, RunState
from scheduler.clock import now as present
from scheduler.database import WAKE_WORKERS, Database, is_retryable, is_unavailable
from scheduler.logs import get_logger
from scheduler.metrics.runs import RunMetrics
from scheduler.runs.running import AT_WORK, LONGEST_RESULT, RunningJob

Written = TypeVar("Written")

metrics = RunMetrics()
LONGEST_TRACEBACK = 10_000  # characters
LONGEST_MESSAGE = 2_000
LONGEST_DURATION_MS = 2**31 - 1  # INT
AT_ONCE = 1000
BYTES_AT_ONCE = 2 * 1024 * 1024
"""Of one statement's JSON, which escaping may double on its way: MariaDB takes packets of up to 16 MiB."""
PAUSE_S = 0.01
"""What ends within this time is settled together."""
AGAIN_S = 0.5
TRIES = 3
"""Of an end that its caller waits for, while the database is away."""

log = get_logger("runs")


@dataclass(slots=True)
class Outcome:
    """How an attempt ended: `state` is final, or `waiting` (to be tried again at `again_at`), or `queued` (given back
    as if it had never begun)."""

    run: RunningJob
    state: RunState
    at: datetime
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    again_at: datetime | None = None
    counts: bool = True
    """Whether the attempt counts: it does not when it was ours to go wrong (the database was away, a drain)."""

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it."""
        return self.state not in UNFINISHED

    @property
    def duration_ms(self) -> int:
        """Of this attempt."""
        # By the wall's clock, which may have jumped; and it may have been begun a month ago.
        return min(max(0, round((self.at - self.run.started_at).total_seconds() * 1000)), LONGEST_DURATION_MS)


def error_of(error: BaseException) -> dict[str, Any]:
    """What a run keeps of an exception."""
    kept = "".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:]
    return {"type": type(error).__name__, "message": _text(str(error))[:LONGEST_MESSAGE], "traceback": _text(kept)}


def _text(text: str) -> str:
    """As UTF-8 can hold it: names of files, for one, may hold halves of surrogate pairs."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class Settler:
    """Outcomes go in as they come (`put`) and are written in bulk; while the database is away they wait."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime] = present,
    ) -> None:
        self._database = database
        self._clock = clock
        self._waiting: list[Outcome] = []
        self._something = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, outcome: Outcome) -> None:
        """Have it written soon."""
        self._waiting.append(outcome)
        self._idle.clear()
        self._something.set()

    async def drained(self) -> None:
        """Wait until all that was put is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._something.wait()
            await asyncio.sleep(PAUSE_S)
            batch = self._waiting[:AT_ONCE]
            await self._settle(batch)
            AT_WORK.difference_update(outcome.run.key for outcome in batch)
            del self._waiting[: len(batch)]
            if not self._waiting:
                self._something.clear()
                self._idle.set()

    async def _settle(self, batch: list[Outcome]) -> None:
        """Until it is written, however long the database is away; one that can't be written fails alone."""
        while True:
            try:
                ended = await self._database.retry_write(lambda session: settle(session, outcomes=batch))
            except Exception as error:
                if is_unavailable(error) or is_retryable(error):
                    log.warning("runs.settle_waits_for_database", runs=len(batch), error=str(error)[:200])
                    await asyncio.sleep(AGAIN_S)
                    continue
                if len(batch) > 1:
                    for outcome in batch:
                        await self._settle([outcome])
                    return
                log.exception("run.not_settled", **batch[0].run.log_context())
                if batch[0].error is not None and batch[0].error["type"] == "NotStored":
                    return  # nothing more can be tried
                unfit = {"type": "NotStored", "message": str(error)[:LONGEST_MESSAGE], "traceback": None}
                batch[0].result, batch[0].state, batch[0].error = None, RunState.FAILED, unfit
                continue
            for outcome in ended:
                log_end(outcome)
            return


async def write_end(database: Database, work: Callable[[AsyncSession], Awaitable[Written]]) -> Written:
    """Write the end of a run by `work`, once more and again where the database is away; then raises what it raised.

    `work` goes by the run's row, and so knows an end that landed though the caller saw a failure.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return await database.retry_write(work)
        except Exception as error:
            if not is_unavailable(error) or attempt == TRIES:
                raise
        await asyncio.sleep(AGAIN_S)
    raise AssertionError("unreachable")


async def settle(session: AsyncSession, *, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Write these outcomes. Returns those that stand, each once; what was taken from its worker is left alone.

    1. Lock the rows that are still ours: running, with the worker and the number that the attempt began with.
    2. Of the others, those whose end landed before, though the caller saw a failure, stand as they are on record.
    3. Write the rest in one statement, and the attempts that were not the last.
    """
    by_id = {outcome.run.id: outcome for outcome in outcomes}
    rows = (await session.execute(_LOCK, {"ids": sorted(by_id)})).all()
    ours: list[Outcome] = []
    landed: list[Outcome] = []
    for row in rows:
        outcome = by_id[row.id]
        if row.worker != outcome.run.worker or row.seq != outcome.run.seq:
            continue
        if row.state == RunState.RUNNING.value:
            if row.cancel_requested_at is not None and not outcome.is_final:
                # Asked for while the attempt failed or was handed back: it must not begin once more.
                outcome.state, outcome.again_at = RunState.CANCELLED, None
            ours.append(outcome)
        elif row.state not in _UNFINISHED:
            outcome.state = RunState(row.state)
            landed.append(outcome)
    if ours:
        await _write(session, ours)
    if any(outcome.is_final and outcome.run.schedule_id is not None for outcome in ours):
        session.info[WAKE_WORKERS] = True  # there may be one blocked behind it
    return ours + landed


async def _write(session: AsyncSession, outcomes: Sequence[Outcome]) -> None:
    values = [_values(outcome) for outcome in outcomes]
    if session.get_bind().dialect.name == "mysql":
        for rows in _packets([orjson.dumps(_for_json(each)) for each in values]):
            await session.execute(_UPDATE_FROM_JSON, {"rows": f"[{b','.join(rows).decode()}]"})
    else:
        connection = await session.connection()
        await connection.execute(_UPDATE_EACH, values)
    tried = [
        {
            "run_id": outcome.run.id,
            "seq": outcome.run.seq,
            "number": outcome.run.attempt,
            "state": RunState.FAILED.value,
            "worker": outcome.run.worker,
            "started_at": outcome.run.started_at,
            "finished_at": outcome.at,
            "error": outcome.error,
        }
        for outcome in outcomes
        if not outcome.is_final and outcome.counts
    ]
    await write_attempts(session, tried)


async def write_attempts(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Record attempts that were not the last of their run; one that is there already stays."""
    if not rows:
        return
    table = RunAttempt.__table__
    if session.get_bind().dialect.name == "mysql":
        await session.execute(mysql.insert(table).on_duplicate_key_update(run_id=table.c.run_id), rows)
    else:
        await session.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)


def log_end(outcome: Outcome) -> None:
    """The record of an attempt's end; of a final one, the run's last."""
    run = outcome.run
    fields: dict[str, Any] = {**run.log_context(), "duration_ms": outcome.duration_ms}
    if outcome.error is not None:
        fields["error"] = outcome.error
    if outcome.result and all(isinstance(value, int | float) for value in outcome.result.values()):
        fields["result"] = outcome.result  # counts; anything else is a person's, and is read in the run
    if outcome.is_final:
        level = {RunState.FAILED: "error", RunState.LOST: "warning"}.get(outcome.state, "info")
        getattr(log, level)(f"run.{outcome.state.value}", **fields)
    elif outcome.counts:
        log.warning("run.attempt_failed", again_at=str(outcome.again_at), **fields)
    else:
        log.info("run.handed_back", **fields)
    with suppress(Exception):  # counting must not break what is counted
        _count(outcome)


def _count(outcome: Outcome) -> None:
    run, state = outcome.run, outcome.state
    if not outcome.is_final:
        if outcome.counts:
            metrics.retried(job=run.job)
        return
    began = state is not RunState.SKIPPED
    due = run.scheduled_for or run.queued_at
    late = (run.started_at - due).total_seconds() if began and due is not None and run.attempt == 1 else None
    metrics.ended(
        job=run.job, state=state.value, duration_s=outcome.duration_ms / 1000 if began else None, lateness_s=late
    )
    if state is RunState.LOST:
        metrics.lost(job=run.job)


def check_result(result: Any) -> dict[str, Any] | None:
    """A job's result as it is kept: an object of JSON of at most 256 KiB, or None. Raises ValueError or TypeError."""
    if not result:
        return None
    if not isinstance(result, dict):
        raise TypeError(f"a job's result is a dict, not a {type(result).__name__}")
    if len(orjson.dumps(result, default=str)) > LONGEST_RESULT:
        raise ValueError(f"the result is larger than {LONGEST_RESULT} bytes")
    return result


def _values(outcome: Outcome) -> dict[str, Any]:
    """The columns as they are to be; named apart from the columns that they are compared with."""
    run, final = outcome.run, outcome.is_final
    began = outcome.counts or final
    return {
        "run_id": run.id,
        "to_state": outcome.state.value,
        "to_seq": run.seq if final else run.seq + 1,
        "to_attempt": run.attempt if began else run.attempt - 1,
        "to_worker": run.worker if final else None,
        "to_started_at": run.started_at if began else None,
        "to_finished_at": outcome.at if final else None,
        "to_duration_ms": outcome.duration_ms if final else None,
        "to_available_at": outcome.again_at,
        "to_result": outcome.result,
        "to_error": outcome.error,
        "to_done": run.progress_done,
        "to_total": run.progress_total,
        "is_final": final,
    }


def _packets(rows: Sequence[bytes]) -> Iterator[list[bytes]]:
    """So many at once as one statement may carry."""
    packet: list[bytes] = []
    size = 0
    for row in rows:
        if packet and size + len(row) > BYTES_AT_ONCE:
            yield packet
            packet, size = [], 0
        packet.append(row)
        size += len(row)
    if packet:
        yield packet


def _for_json(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON_TABLE reads them: what is null is left out."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, UUID):
            made[name] = value.hex
        elif isinstance(value, datetime):
            made[name] = value.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        elif isinstance(value, dict):
            made[name] = orjson.dumps(value, default=str).decode()
        else:
            made[name] = int(value) if isinstance(value, bool) else value
    return made


_UNFINISHED = frozenset(state.value for state in UNFINISHED)
_LOCK = (
    select(Run.id, Run.state, Run.worker, Run.seq, Run.cancel_requested_at)
    .where(Run.id.in_(bindparam("ids", expanding=True)))
    .with_for_update()
)
# One statement for any number of rows: the driver would send an UPDATE a row, each with a round trip.
_UPDATE_FROM_JSON = text(
    """
    UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
        run_id CHAR(32) PATH '$.run_id',
        to_state VARCHAR(16) PATH '$.to_state',
        to_seq BIGINT PATH '$.to_seq',
        to_attempt SMALLINT PATH '$.to_attempt',
        to_worker VARCHAR(128) PATH '$.to_worker',
        to_started_at DATETIME(6) PATH '$.to_started_at',
        to_finished_at DATETIME(6) PATH '$.to_finished_at',
        to_duration_ms INT PATH '$.to_duration_ms',
        to_available_at DATETIME(6) PATH '$.to_available_at',
        to_result MEDIUMTEXT PATH '$.to_result',
        to_error MEDIUMTEXT PATH '$.to_error',
        to_done BIGINT PATH '$.to_done',
        to_total BIGINT PATH '$.to_total',
        is_final INT PATH '$.is_final'
    )) AS given STRAIGHT_JOIN run ON run.id = UNHEX(given.run_id)
    SET run.state = given.to_state,
        run.seq = given.to_seq,
        run.attempt = given.to_attempt,
        run.worker = given.to_worker,
        run.started_at = given.to_started_at,
        run.finished_at = given.to_finished_at,
        run.duration_ms = given.to_duration_ms,
        run.available_at = given.to_available_at,
        run.result = given.to_result,
        run.error = given.to_error,
        run.progress_done = given.to_done,
        run.progress_total = given.to_total,
        run.unique_key = IF(given.is_final = 1, NULL, run.unique_key)
    """
)
_UPDATE_EACH = (
    update(Run.__table__)
    .where(Run.id == bindparam("run_id"))
    .values(
        state=bindparam("to_state"),
        seq=bindparam("to_seq"),
        attempt=bindparam("to_attempt"),
        worker=bindparam("to_worker"),
        started_at=bindparam("to_started_at"),
        finished_at=bindparam("to_finished_at"),
        duration_ms=bindparam("to_duration_ms"),
        available_at=bindparam("to_available_at"),
        result=bindparam("to_result"),
        error=bindparam("to_error"),
        progress_done=bindparam("to_done"),
        progress_total=bindparam("to_total"),
        unique_key=text("CASE WHEN :is_final THEN NULL ELSE unique_key END"),
    )
)
