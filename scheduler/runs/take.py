"""Beginning runs: of all who were told of a run, the one who changes its row has it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState
from scheduler.runs.dispatch import Dispatched
from scheduler.runs.running import RunningJob


async def take(
    session: AsyncSession, *, dispatched: Sequence[Dispatched], worker: str, now: datetime
) -> list[RunningJob]:
    """Begin those of these runs that are still on the way with that number. Once this commits, they are `worker`'s."""
    wanted = {each.id: each.seq for each in dispatched}
    if not wanted:
        return []
    # In the order of their ids, as every statement that waits for locks on several runs: so no two wait for each other.
    query = _COLUMNS.where(Run.id.in_(sorted(wanted)), Run.state == RunState.DISPATCHED.value).with_for_update()
    rows = [row for row in await session.execute(query) if row.seq == wanted[row.id]]
    if rows:
        await session.execute(_BEGIN, {"ids": [row.id for row in rows], "by": worker, "at": now})
    return [_running(row, row.seq, worker, now) for row in rows]


async def take_quarantined(
    session: AsyncSession, *, queues: Sequence[str], worker: str, now: datetime
) -> RunningJob | None:
    """Begin one run at which a worker died: the longest asked for, alone."""
    query = (
        _COLUMNS.where(Run.state == RunState.QUARANTINED.value, Run.queue.in_(queues))
        .order_by(Run.priority, Run.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (await session.execute(query)).one_or_none()
    if row is None:
        return None
    await session.execute(
        update(Run.__table__)
        .where(Run.id == row.id)
        .values(
            state=RunState.RUNNING.value,
            worker=worker,
            started_at=now,
            attempt=Run.attempt + 1,
            seq=Run.seq + 1,
            progress_done=0,
            progress_total=0,
        )
    )
    return _running(row, row.seq + 1, worker, now)


def _running(row: Any, seq: int, worker: str, now: datetime) -> RunningJob:
    return RunningJob(
        id=row.id,
        job=row.job,
        trigger=row.trigger,
        attempt=row.attempt + 1,
        started_at=now,
        worker=worker,
        seq=seq,
        max_attempts=row.max_attempts,
        owner_id=row.owner_id,
        arguments=row.arguments or {},
        schedule_id=row.schedule_id,
        scheduled_for=row.scheduled_for,
        queued_at=row.queued_at,
        request_id=row.request_id,
    )


_COLUMNS = select(
    Run.id,
    Run.job,
    Run.trigger,
    Run.attempt,
    Run.max_attempts,
    Run.seq,
    Run.owner_id,
    Run.arguments,
    Run.schedule_id,
    Run.scheduled_for,
    Run.queued_at,
    Run.request_id,
)
_BEGIN = (
    update(Run.__table__)
    .where(Run.id.in_(bindparam("ids", expanding=True)))
    .values(
        state=RunState.RUNNING.value,
        worker=bindparam("by"),
        started_at=bindparam("at"),
        attempt=Run.attempt + 1,
        progress_done=0,
        progress_total=0,
    )
)
