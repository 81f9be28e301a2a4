"""Heartbeats: a worker says that it lives, and looks at what the database says it is at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run, Worker
from models.run import RunState
from scheduler.database import AFTER_COMMIT, affected
from scheduler.runs.running import AT_WORK, RunningJob

EVERY_S = 1.0
"""Seconds between two beats; also how soon a running job hears that it is cancelled."""
STRANGER_S = 3.0
"""How long the database must say that this worker is at a run, and the worker not know of it, until it gives it back.
Longer than the moment between the commit that begins a run and its start."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is."""

    name: str
    version: str
    queues: Sequence[str]
    concurrency: int
    started_at: datetime


Attempt = tuple[UUID, int]
"""As `RunningJob.key`."""


class Orders(NamedTuple):
    """What a worker has to do about its runs."""

    cancel: list[Attempt]
    """Somebody asked for them to be stopped."""
    abandon: list[Attempt]
    """They are no longer this worker's."""
    strangers: list[Attempt]
    """The database says that this worker is at them, and it is not: the commit of their beginning landed, but the
    worker saw a failure; or their end could not be written."""


class Heartbeat:
    """The beats of one worker."""

    def __init__(self, identity: Identity, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self.identity = identity
        self._seconds = seconds
        self._beat = 0
        self._told: dict[Attempt, tuple[int, int]] = {}
        self._missing: set[Attempt] = set()
        self._strangers: dict[Attempt, float] = {}

    async def beat(self, session: AsyncSession, *, running: Sequence[RunningJob], now: datetime) -> Orders:
        """Say that this worker lives, store what its runs report, and see what is to be done about them."""
        self._beat += 1
        me = self.identity.name
        alive = await session.execute(
            update(Worker.__table__).where(Worker.name == me).values(beat=self._beat, heartbeat_at=now)
        )
        if affected(alive) == 0:  # new, or taken for dead meanwhile
            await session.execute(insert(Worker.__table__), [self._row(now)])
        await self._store_progress(session, running)
        theirs = await self._on_record(session)
        # One that ends in this very moment is no longer on record either: only who is missed twice is another's by now.
        missed_before, self._missing = self._missing, {run.key for run in running if not run.is_settled} - theirs.keys()
        return Orders(
            cancel=[key for key, asked_at in theirs.items() if asked_at is not None],
            abandon=[key for key in self._missing if key in missed_before],
            strangers=self._strange(theirs.keys() - AT_WORK),
        )

    async def strangers(self, session: AsyncSession) -> list[Attempt]:
        """All that this worker is said to be at and is not, for one that ends: nothing may appear any more."""
        return list((await self._on_record(session)).keys() - AT_WORK)

    async def leave(self, session: AsyncSession) -> None:
        """This worker ends in order: its row goes with it."""
        await session.execute(delete(Worker.__table__).where(Worker.name == self.identity.name))

    async def _on_record(self, session: AsyncSession) -> dict[Attempt, datetime | None]:
        """What the database says that this worker is at, and since when it is to be stopped."""
        query = select(Run.id, Run.seq, Run.cancel_requested_at).where(
            Run.state == RunState.RUNNING.value, Run.worker == self.identity.name
        )
        return {(row.id, row.seq): row.cancel_requested_at for row in await session.execute(query)}

    def _row(self, now: datetime) -> dict[str, object]:
        return {
            "name": self.identity.name,
            "version": self.identity.version,
            "queues": list(self.identity.queues),
            "concurrency": self.identity.concurrency,
            "beat": self._beat,
            "started_at": self.identity.started_at,
            "heartbeat_at": now,
        }

    async def _store_progress(self, session: AsyncSession, running: Sequence[RunningJob]) -> None:
        told = {run.key: (run.progress_done, run.progress_total) for run in running}
        changed = {run.id: run for run in running if told[run.key] != self._told.get(run.key, (0, 0))}
        if changed:
            # Whoever commits a long effect holds its run: that must not hold up the beat, or the worker would be taken
            # for dead. What is held now is told the next time.
            query = select(Run.id).where(Run.id.in_(changed)).with_for_update(skip_locked=True)
            free = set((await session.execute(query)).scalars())
            for run in changed.values():
                if run.id not in free:
                    told[run.key] = self._told.get(run.key, (0, 0))
                    continue
                done, total = told[run.key]
                await session.execute(_PROGRESS, {"run": run.id, "number": run.seq, "done": done, "total": total})
        # Not before the commit: what a failed beat has not stored is still to be told.
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: setattr(self, "_told", told))

    def _strange(self, present: set[Attempt]) -> list[Attempt]:
        at = self._seconds()
        self._strangers = {key: self._strangers.get(key, at) for key in present}
        return [key for key, since in self._strangers.items() if at - since >= STRANGER_S]


_PROGRESS = (
    update(Run.__table__)
    .where(Run.id == bindparam("run"), Run.seq == bindparam("number"), Run.state == RunState.RUNNING.value)
    .values(progress_done=bindparam("done"), progress_total=bindparam("total"))
)
