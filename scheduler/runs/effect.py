"""Effects in the database: done in the transaction that ends the run, and therefore once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState
from scheduler.clock import now as present
from scheduler.database import Database
from scheduler.runs.running import RunningJob, RunTaken
from scheduler.runs.settle import Outcome, check_result, log_end, settle, write_end

Effect = Callable[[AsyncSession], Awaitable[dict[str, Any]]]


async def succeed_with(
    database: Database, *, run: RunningJob, effect: Effect, clock: Callable[[], datetime] = present
) -> dict[str, Any]:
    """Do `effect` and end the run as succeeded with what it returns, in one transaction. Returns the result.

    A commit that landed though the caller saw a failure is known by the run's row: the effect is not done again.
    Raises `RunTaken` where the run is no longer ours, and what `effect` raises; then nothing is done.
    """
    ended: list[Outcome] = []

    async def work(session: AsyncSession) -> dict[str, Any]:
        ended.clear()
        # 1. The row is the lock and the fence: whoever holds it decides how this attempt ends.
        query = select(Run.state, Run.worker, Run.seq, Run.result).where(Run.id == run.id).with_for_update()
        held = (await session.execute(query)).one_or_none()
        if held is None or held.worker != run.worker or held.seq != run.seq:
            raise RunTaken()
        if held.state == RunState.SUCCEEDED.value:
            ended.append(Outcome(run, RunState.SUCCEEDED, clock(), held.result))
            return dict(held.result or {})
        if held.state != RunState.RUNNING.value:
            raise RunTaken()
        # 2. The effect, and 3. the end, in this same transaction.
        result = await effect(session)
        ended.extend(await settle(session, outcomes=[Outcome(run, RunState.SUCCEEDED, clock(), check_result(result))]))
        return result

    result = await write_end(database, work)
    run.is_settled = True
    for outcome in ended:
        log_end(outcome)
    return result
