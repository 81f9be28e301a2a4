"""The versions of tasks, raised by jobs that change what a task's answer shows."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Task

_RAISE = update(Task.__table__).where(Task.id.in_(bindparam("ids", expanding=True))).values(version=Task.version + 1)


async def raise_versions(session: AsyncSession, task_ids: Iterable[UUID]) -> None:
    """Raise each task's version by one; in the order of ids, so that two workers can't deadlock."""
    await session.execute(_RAISE, {"ids": sorted(task_ids)})
