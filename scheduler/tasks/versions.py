"""The versions of tasks: compared with what a client has read, and raised by whatever changes a task's answer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task
from scheduler.errors import PreconditionFailed

MOST_AT_ONCE = 1000
"""Tasks a statement: SQLite takes some 32,000 parameters at the most."""

_RAISE = update(Task.__table__).where(Task.id.in_(bindparam("ids", expanding=True))).values(version=Task.version + 1)


async def raise_versions(session: AsyncSession, task_ids: Iterable[UUID]) -> None:
    """Raise each task's version by one; in the order of ids, so that two workers can't deadlock."""
    ids = sorted(task_ids)
    for start in range(0, len(ids), MOST_AT_ONCE):
        await session.execute(_RAISE, {"ids": ids[start : start + MOST_AT_ONCE]})


async def raise_version(session: AsyncSession, task_id: UUID, *, now: datetime) -> None:
    """Raise the version of one task that is locked, whose people or reminders somebody has changed."""
    await session.execute(update(Task).where(Task.id == task_id).values(version=Task.version + 1, updated_at=now))


def check_version(present: int, wanted: int | None) -> None:
    """Raise `PreconditionFailed` when a client wants another version than the present one (None: any will do)."""
    if wanted is not None and wanted != present:
        raise PreconditionFailed()
