"""Dispatching: what is queued is marked in bulk as on its way, fair by owner, and only then told to a worker."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, exists, func, or_, select, true, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from models import Run
from models.run import UNFINISHED, RunState
from scheduler.database import affected
from scheduler.runs.jobs import HIGH, LOW, NORMAL, QUEUES

STAGED_AT_ONCE = 1000
MOST_OWNERS = 64
"""Owners that share one dispatch; those behind them are first in the next."""


class Dispatched(NamedTuple):
    """A run on its way to a worker. Whoever begins it must show this `seq`."""

    id: UUID
    seq: int


class Pending(NamedTuple):
    """What there is to do, found by four looks into an index."""

    due: bool
    """Waiting runs whose time has come."""
    blocked: bool
    queued: bool
    quarantined: bool


async def look(session: AsyncSession, *, now: datetime, queues: Sequence[str] = QUEUES) -> Pending:
    """Whether there is anything to do for a worker of these queues. One statement, whatever the table's size."""
    query = select(
        exists().where(Run.available_at <= now),
        exists().where(Run.state == RunState.BLOCKED.value),
        # What lies in a queue that this worker does not take from would be looked for in vain, again and again.
        exists().where(Run.state == RunState.QUEUED.value, Run.queue.in_(queues)),
        exists().where(Run.state == RunState.QUARANTINED.value, Run.queue.in_(queues)),
    )
    return Pending(*map(bool, (await session.execute(query)).one()))


async def stage(session: AsyncSession, *, now: datetime) -> int:
    """Queue the waiting runs whose time has come. Returns how many."""
    query = (
        select(Run.id)
        .where(Run.available_at <= now, Run.state == RunState.WAITING.value)
        .limit(STAGED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    ids = (await session.execute(query)).scalars().all()
    if ids:
        await session.execute(_QUEUE, {"ids": ids})
    return len(ids)


async def release_blocked(session: AsyncSession) -> int:
    """Queue of each schedule the first blocked run, where no earlier one is unfinished. Returns how many."""
    blocked = RunState.BLOCKED.value
    # 1. The first of each schedule. By the index on (state, …): few schedules have blocked runs.
    first = (
        select(
            Run.id,
            Run.schedule_id,
            Run.owner_id,
            func.row_number()
            .over(partition_by=Run.schedule_id, order_by=(Run.scheduled_for.is_(None), Run.scheduled_for, Run.id))
            .label("place"),
        )
        .where(Run.state == blocked)
        .subquery()
    )
    firsts = (await session.execute(select(first).where(first.c.place == 1))).all()
    if not firsts:
        return 0
    # 2. Only then, which schedules are busy: had another dispatcher released one of these meanwhile, it is found here.
    # The other way round, we would take the next one for the first, and two would run at once.
    earlier = aliased(Run)
    busy = (
        select(earlier.schedule_id)
        .with_hint(earlier, f"FORCE INDEX ({_INDEX})", "mysql")  # or it walks the schedules' history
        .where(
            earlier.state.in_([state.value for state in UNFINISHED if state is not RunState.BLOCKED]),
            # Whose schedules they are, so that what others have queued costs nothing; in any queue and of any priority,
            # as these change with the job's declaration.
            earlier.queue.in_(QUEUES),
            earlier.priority.in_((HIGH, NORMAL, LOW)),
            or_(*_of_owners(earlier.owner_id, {row.owner_id for row in firsts})),
            func.coalesce(earlier.schedule_id, earlier.id).in_([row.schedule_id for row in firsts]),
        )
    )
    held = set((await session.execute(busy)).scalars())
    ids = [row.id for row in firsts if row.schedule_id not in held][:STAGED_AT_ONCE]
    if not ids:
        return 0
    # 3. Two dispatchers may come to the same ids: the second finds them queued, and changes nothing.
    released = await session.execute(
        update(Run.__table__).where(Run.id.in_(ids), Run.state == blocked).values(state=RunState.QUEUED.value)
    )
    return affected(released)


async def count_on_the_way(session: AsyncSession, *, worker: str) -> int:
    """How many runs this worker dispatched that nobody has begun yet."""
    query = select(func.count()).where(Run.state == RunState.DISPATCHED.value, Run.worker == worker)
    count: int = (await session.execute(query)).scalar_one()
    return count


async def on_the_way(session: AsyncSession, *, worker: str) -> list[Dispatched]:
    """What this worker dispatched and nobody has begun yet."""
    query = select(Run.id, Run.seq).where(Run.state == RunState.DISPATCHED.value, Run.worker == worker)
    return [Dispatched(row.id, row.seq) for row in await session.execute(query)]


class Dispatch(NamedTuple):
    """What one call of `dispatch` marked, and whether more was queued than there was room for."""

    runs: list[Dispatched]
    has_more: bool


async def dispatch(session: AsyncSession, *, queue: str, worker: str, room: int) -> Dispatch:
    """Mark up to `room` runs of a queue as dispatched by `worker`; once this commits, tell a worker.

    By priority; among runs of equal priority, owners share: while there are more runs than room, each of up to 64
    owners (drawn by lot where there are more) gets an equal part.
    """
    query = (
        select(Run.id, Run.seq, Run.owner_id, Run.priority)
        .where(Run.state == RunState.QUEUED.value, Run.queue == queue)
        .with_hint(Run.__table__, f"FORCE INDEX ({_INDEX})", "mysql")
        .order_by(Run.priority, Run.owner_id, *_by_time(session))
        .limit(room + 1)
        .with_for_update(skip_locked=True)
    )
    found: Sequence[Any] = (await session.execute(query)).all()
    has_more = len(found) > room
    if has_more:
        found = await _fair(session, queue=queue, first=found[:room])
    if found:
        await session.execute(_DISPATCH, {"ids": [row.id for row in found], "by": worker})
    return Dispatch([Dispatched(row.id, row.seq + 1) for row in found], has_more)


async def return_unbegun(session: AsyncSession, *, dispatched: Iterable[Dispatched]) -> int:
    """Queue again what was dispatched with these very numbers and never begun. Returns how many."""
    wanted = {each.id: each.seq for each in dispatched}
    if not wanted:
        return 0
    query = (
        select(Run.id, Run.seq)
        .where(Run.id.in_(wanted), Run.state == RunState.DISPATCHED.value)
        .with_for_update(skip_locked=True)
    )
    ids = [row.id for row in await session.execute(query) if row.seq == wanted[row.id]]
    if ids:
        await session.execute(_QUEUE, {"ids": ids})
    return len(ids)


async def return_everything_of(session: AsyncSession, *, worker: str) -> int:
    """Queue again all that this worker dispatched and nobody has begun: it leaves. Returns how many."""
    query = (
        select(Run.id)
        .where(Run.state == RunState.DISPATCHED.value, Run.worker == worker)
        .with_for_update(skip_locked=True)
    )
    ids = (await session.execute(query)).scalars().all()
    if ids:
        await session.execute(_QUEUE, {"ids": ids})
    return len(ids)


async def _fair(session: AsyncSession, *, queue: str, first: Sequence[Any]) -> Sequence[Any]:
    """`first` in the order of the index, or, where its last priority has several owners, a fair share of each."""
    room = len(first)
    priority = first[-1].priority
    sure = [row for row in first if row.priority != priority]  # more urgent, and all of them fit
    contended = (Run.state == RunState.QUEUED.value, Run.queue == queue, Run.priority == priority)
    # In the index alone, without a look at the rows: some 0.4 µs for each run that is queued.
    owners = (await session.execute(select(Run.owner_id).where(*contended).distinct())).scalars().all()
    if len(owners) < 2:
        return first
    turns = random.sample(list(owners), min(MOST_OWNERS, len(owners), room - len(sure)))  # nosec B311
    # Twice the equal part, as some owners have less than theirs.
    share = -(-2 * (room - len(sure)) // len(turns))
    candidates = await _firsts(session, contended, turns, share)
    chosen = [row.id for row in sure] + [row.id for row in candidates][: room - len(sure)]
    query = (
        select(Run.id, Run.seq, Run.owner_id, Run.priority)
        .where(Run.id.in_(chosen), Run.state == RunState.QUEUED.value)
        .with_for_update(skip_locked=True)
    )
    place = {run_id: number for number, run_id in enumerate(chosen)}
    fair = sorted((await session.execute(query)).all(), key=lambda row: place[row.id])
    # Where owners have less than their part, or another dispatcher is at the same ones, `first` (which we have locked)
    # fills the rest.
    there = {row.id for row in fair}
    return fair + [row for row in first if row.id not in there][: room - len(fair)]


async def _firsts(session: AsyncSession, contended: Any, owners: Sequence[UUID | None], share: int) -> list[Any]:
    """The first `share` runs of each owner; one of each before the second of any."""
    # Padded to a power of two, so that a handful of statements is compiled and kept, not one a number of owners.
    size = 1 << (len(owners) - 1).bit_length()
    padded = [*owners, *[owners[0]] * (size - len(owners))]
    parts = [
        select(
            select(Run.id, Run.owner_id)
            .with_hint(Run.__table__, f"FORCE INDEX ({_INDEX})", "mysql")
            .where(*contended, Run.owner_id.is_not_distinct_from(bindparam(f"owner_{place}", type_=Run.owner_id.type)))
            .order_by(*_by_time(session))
            .limit(bindparam("share"))
            .subquery()
        )
        for place in range(size)
    ]
    parameters = {f"owner_{place}": owner for place, owner in enumerate(padded)}
    found = (await session.execute(union_all(*parts), {**parameters, "share": share})).all()
    by_owner: dict[UUID | None, list[Any]] = {owner: [] for owner in owners}
    seen = set()
    for row in found:
        if row.id not in seen:
            seen.add(row.id)
            by_owner[row.owner_id].append(row)
    return [rows[place] for place in range(share) for rows in by_owner.values() if place < len(rows)]


def _of_owners(column: Any, owners: set[UUID | None]) -> list[Any]:
    if len(owners) > MOST_OWNERS:
        return [true()]  # so many ranges of the index would cost more than they save
    persons = [owner for owner in owners if owner is not None]
    return ([column.in_(persons)] if persons else []) + ([column.is_(None)] if None in owners else [])


def _by_time(session: AsyncSession) -> list[Any]:
    """An owner's runs in the order in which they were asked for, without a sort.

    InnoDB's index ends in the id, which is by time. SQLite's ends in the number of the row, which is so too; by the id
    it would have to sort all that the owner has queued.
    """
    return [Run.id] if session.get_bind().dialect.name == "mysql" else []


_INDEX = next(
    str(index.name)
    for index in Run.__table__.indexes
    if [column.key for column in index.columns] == ["state", "queue", "priority", "owner_id"]
)
_QUEUE = (
    update(Run.__table__)
    .where(Run.id.in_(bindparam("ids", expanding=True)))
    .values(state=RunState.QUEUED.value, available_at=None, worker=None)
)
_DISPATCH = (
    update(Run.__table__)
    .where(Run.id.in_(bindparam("ids", expanding=True)))
    .values(state=RunState.DISPATCHED.value, worker=bindparam("by"), seq=Run.seq + 1)
)
