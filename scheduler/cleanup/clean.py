"""The cleanup: small batches, each a short transaction of its own, with a rest after each."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.cleanup.kinds import KINDS, Kind, Removed, behind
from scheduler.database import Database, is_unavailable
from scheduler.logs import get_logger
from scheduler.runs.running import JobFailed, RunningJob

RETENTION = timedelta(days=30)
"""Of finished runs and of log records, where the operator says nothing else: a month's story, as of everything here."""
LONGEST_S = 3000
"""Below the job's time-out of an hour, and below the hour after which it is called again."""
FIRST_BATCH, LEAST, MOST = 100, 10, 500
AIM_S = 0.05
"""How long a batch is to hold its locks: its size is fitted to that, whatever the machine and the rows."""
REST = 0.5
"""As a share of the time that a batch took: others come to their turn."""
REST_ON_SQLITE = 2.0
"""There is one writer at a time, and those who wait look only every now and then whether it is their turn."""
MOST_COUNTED = 1_000_000
"""Rows of a kind that are counted for the progress; of more, it says that there are at least so many."""

log = get_logger("cleanup")


async def clean_up(
    database: Database,
    *,
    run: RunningJob,
    now: datetime,
    retention: timedelta = RETENTION,
    seconds: Callable[[], float] = time.monotonic,
    longest_s: float = LONGEST_S,
) -> dict[str, int]:
    """Delete everything that was past its time at `now`; `retention` is that of finished runs and of log records.

    Kinds take turns, a batch each, so that a great many of one don't hold up the others. After `longest_s` the rest is
    left to the next run. Cancelling it leaves what is deleted deleted, and everything else whole.

    Returns the rows of each kind, and in `kinds_left` how many kinds are not done. Raises `JobFailed`, with the same as
    its result, when some kinds could not be cleaned; the others have been.
    """
    began = seconds()
    walks = [_Walk(database, kind, until=now - (kind.kept or retention), seconds=seconds) for kind in KINDS]
    failures: dict[str, Exception] = {}
    expected = 0
    for walk in walks:
        expected += await walk.count()
    turns = deque(walks)
    rest = REST if database.is_mysql else REST_ON_SQLITE
    while turns and seconds() - began < longest_s:
        walk = turns.popleft()
        batch_began = seconds()
        try:
            if await walk.step():
                turns.append(walk)
        except Exception as error:
            if is_unavailable(error):
                raise
            log.exception("cleanup.kind_failed", **run.log_context(), kind=walk.kind.name)
            failures[walk.kind.name] = error
        seen = sum(each.seen for each in walks)
        run.report_progress(seen, max(seen, expected))
        await asyncio.sleep((seconds() - batch_began) * rest)
    counts = {name: count for walk in walks for name, count in walk.counts.items()}
    counts["kinds_left"] = len(turns) + len(failures)
    if turns:
        log.warning("cleanup.out_of_time", **run.log_context(), kinds=[walk.kind.name for walk in turns])
    if failures:
        told = "; ".join(f"{name}: {type(error).__name__}: {error}"[:500] for name, error in failures.items())
        raise JobFailed(f"Not everything could be cleaned up. {told}", result=dict(counts))
    return counts


class _Walk:
    """The way through all of one kind that is past its time, oldest first, a batch a step."""

    def __init__(self, database: Database, kind: Kind, *, until: datetime, seconds: Callable[[], float]) -> None:
        self.kind = kind
        self.counts = dict.fromkeys(kind.counts, 0)
        self.seen = 0
        """Rows behind us, whether they are deleted or stay."""
        self._database = database
        self._until = until
        self._seconds = seconds
        self._size = FIRST_BATCH
        self._spared: set[Any] | None = None
        # Each batch begins behind the one before: what stays is not looked at twice, nor is what the database has
        # deleted and not yet forgotten.
        self._last: tuple[datetime, Any] | None = None

    async def count(self) -> int:
        """About how many rows there are to walk over."""
        rows = select(self.kind.key).where(*self._way()).limit(MOST_COUNTED).subquery()
        async with self._database.read() as session:
            return int((await session.execute(select(func.count()).select_from(rows))).scalar_one())

    async def step(self) -> bool:
        """Remove a batch. Returns whether there may be more."""
        if self._spared is None:
            find = self.kind.spared
            self._spared = await find(self._database, self._until) if find is not None else set()
        limit = self._size
        rows = await self._next_rows(limit)
        past = [place for place, (key, _, is_past) in enumerate(rows) if is_past and key not in self._spared]
        done = len(rows)
        if past:
            removed = await self._remove([rows[place][0] for place in past], limit)
            for name, count in removed.counts.items():
                self.counts[name] += count
            if removed.handled < len(past):
                done = past[removed.handled]
        if done:
            self._last = rows[done - 1][1], rows[done - 1][0]
            self.seen += done
        return len(rows) == limit or done < len(rows)

    def _way(self) -> list[ColumnElement[bool]]:
        conditions = [*self.kind.where, self.kind.by <= self._until]
        if self._last is not None:
            conditions.append(behind(self.kind.by, self._last[0], self.kind.key, self._last[1]))
        return conditions

    async def _next_rows(self, limit: int) -> Sequence[Any]:
        """Keys, instants and whether they are really past: read without a lock."""
        is_past = self.kind.is_past(self._until) if self.kind.is_past is not None else true()
        query = (
            select(self.kind.key, self.kind.by, is_past.label("is_past"))
            .where(*self._way())
            .order_by(self.kind.by, self.kind.key)
            .limit(limit)
        )
        async with self._database.read() as session:
            return (await session.execute(query)).all()

    async def _remove(self, keys: Sequence[Any], limit: int) -> Removed:
        began = 0.0

        async def work(session: AsyncSession) -> Removed:
            nonlocal began
            await session.connection()  # on SQLite the writer's lock is waited for here
            began = self._seconds()
            return await self.kind.remove(session, keys, self._until, limit)

        removed = await self._database.retry_write(work)
        self._size = fitted(limit, self._seconds() - began)
        return removed


def fitted(size: int, held_s: float) -> int:
    """The size of the next batch, after one of `size` rows held its locks for so many seconds."""
    factor = AIM_S / held_s if held_s > 0 else 2.0
    return max(LEAST, min(MOST, int(size * min(2.0, factor))))
