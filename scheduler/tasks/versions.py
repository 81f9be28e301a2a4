"""The versions of tasks, raised by what changes a task's answer without changing the task itself."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task

MOST_AT_ONCE = 1000
"""Tasks a statement: SQLite takes some 32,000 parameters at the most."""

_RAISE = update(Task.__table__).where(Task.id.in_(bindparam("ids", expanding=True))).values(version=Task.version + 1)


async def raise_versions(session: AsyncSession, task_ids: Iterable[UUID]) -> None:
    """Raise each task's version by one; in the order of ids, so that two workers can't deadlock."""
    ids = sorted(task_ids)
    for start in range(0, len(ids), MOST_AT_ONCE):
        await session.execute(_RAISE, {"ids": ids[start : start + MOST_AT_ONCE]})
