"""Those who ask for runs: over the whole time, in several ways, through a database client that fails them too.

    python -m tests.chaos.producer PLAN GROUND      started by the round, with the service's settings in its environment

What it has seen committed it says in lines of `accepted.log`, each a JSON list of titles (or idempotency keys).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import uvloop
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models import Run
from models.run import RunState, RunTrigger
from scheduler.clock import now
from scheduler.database import Database
from scheduler.errors import Conflict, NotFound
from scheduler.logs import configure_logging, get_logger
from scheduler.runs.control import cancel
from scheduler.runs.enqueue import NewRun, enqueue, enqueue_many
from scheduler.runs.jobs import JobName
from scheduler.settings import load_settings
from tests.chaos.client_faults import install_from_environment
from tests.chaos.load import Kind, create_task, title
from tests.chaos.plan import Plan

MOST_AT_ONCE = 60
PAUSE_S = 0.2
FIRST_FIRING = datetime(2026, 1, 1, tzinfo=UTC)

Outcome = TypeVar("Outcome")

log = get_logger("chaos")


class Producer:
    """Everybody who asks for runs."""

    def __init__(self, plan: Plan, ground: Mapping[str, Any], database: Database) -> None:
        self._plan = plan
        self._database = database
        self._people = [UUID(each) for each in ground["people"]]
        self._queues = [UUID(each) for each in ground["queues"]]
        self._url: str = ground["receiver"]
        self._accepted = Path(ground["accepted"]).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 (for good)
        self._began = time.monotonic()
        self._next_plain = 0

    async def run(self) -> None:
        """Ask for everything; returns when it is known to stand."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_plainly())
            group.create_task(self._ask_with_keys())
            group.create_task(self._ask_for_requests())
            group.create_task(self._ask_and_cancel())
            for number, schedule_id in enumerate(self._queues):
                group.create_task(self._backfill(number, schedule_id))

    async def _ask_plainly(self) -> None:
        """Two thirds of the jobs, in bulk; for what seems to have failed, others are asked for in its place."""
        rng = self._rng(Kind.PLAIN)
        wanted, accepted = 2 * self._plan.jobs // 3, 0
        while accepted < wanted:
            await self._pace(accepted / wanted, rng)
            count = min(rng.randint(1, MOST_AT_ONCE), wanted - accepted)
            titles = [title(Kind.PLAIN, self._next_plain + place) for place in range(count)]
            self._next_plain += count
            new = [self._create(each, rng) for each in titles]
            try:
                async with self._database.write() as session:
                    await enqueue_many(session, new, now=now())
            except Exception as error:
                log.warning("producer.failed", error=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(PAUSE_S)
            else:
                accepted += count
                self._note(titles)

    async def _ask_with_keys(self) -> None:
        """The other third, in small transactions that are tried again until they are known to stand."""
        rng = self._rng(Kind.KEYED)
        wanted, asked = self._plan.jobs - 2 * self._plan.jobs // 3, 0
        while asked < wanted:
            await self._pace(asked / wanted, rng)
            count = min(rng.choice((1, 1, 2, 5, 20)), wanted - asked)
            titles = [title(Kind.KEYED, asked + place) for place in range(count)]
            asked += count
            new = [self._create(each, rng, idempotency_key=each) for each in titles]
            if count == 1:
                await self._until_it_stands(partial(self._enqueue, new=new[0]))
            else:
                await self._until_it_stands(partial(self._enqueue_all, new=new))
            self._note(titles)

    async def _ask_for_requests(self) -> None:
        rng = self._rng("requests")
        for number in range(self._plan.requests):
            await self._pace(number / self._plan.requests, rng)
            key = f"chaos-request-{number}"
            action = {"type": "http_request", "method": "POST", "url": self._url, "body": key}
            new = self._new({"action": action}, rng, idempotency_key=key)
            await self._until_it_stands(partial(self._enqueue, new=new))
            self._note([key])

    async def _ask_and_cancel(self) -> None:
        rng = self._rng(Kind.CANCELLED)
        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.cancels):
                await self._pace(number / self._plan.cancels, rng)
                of_title = title(Kind.CANCELLED, number)
                new = self._create(of_title, rng, idempotency_key=of_title)
                await self._until_it_stands(partial(self._enqueue, new=new))
                self._note([of_title])
                group.create_task(self._cancel_later(of_title, rng.choice((0.0, 0.05, 0.3, 1.0, 3.0))))

    async def _cancel_later(self, key: str, after_s: float) -> None:
        await asyncio.sleep(after_s)

        async def work(session: AsyncSession) -> None:
            run_id = (await session.execute(select(Run.id).where(Run.idempotency_key == key))).scalar_one()
            await cancel(session, run_id=run_id, now=now())

        try:
            await self._until_it_stands(work)
        except (Conflict, NotFound) as error:
            log.info("producer.not_cancelled", error=str(error))

    async def _backfill(self, number: int, schedule_id: UUID) -> None:
        """The firings of one schedule, in two transactions; each waits for the one before it."""
        rng = self._rng(f"{Kind.QUEUED}-{number}")
        half = self._plan.in_queue // 2
        for part, places in enumerate((range(half), range(half, self._plan.in_queue))):
            await self._pace((number + part * len(self._queues)) / (4 * len(self._queues)), rng)
            titles = [title(Kind.QUEUED, number * self._plan.in_queue + place) for place in places]
            new = [
                self._create(
                    each,
                    rng,
                    owner_id=self._people[number],  # the schedule's own, as `load.prepare` made it
                    state=RunState.BLOCKED,
                    schedule_id=schedule_id,
                    scheduled_for=FIRST_FIRING + timedelta(hours=place),
                )
                for each, place in zip(titles, places, strict=True)
            ]
            await self._until_it_stands(partial(self._enqueue_all, new=new))
            self._note(titles)

    def _create(self, of_title: str, rng: random.Random, **fields: Any) -> NewRun:
        return self._new(create_task(of_title), rng, **fields)

    def _new(self, arguments: dict[str, Any], rng: random.Random, **fields: Any) -> NewRun:
        return NewRun(
            job=JobName.RUN_SCHEDULE,
            trigger=RunTrigger.MANUAL,
            arguments=arguments,
            **{"owner_id": rng.choice(self._people)} | fields,
        )

    async def _enqueue_all(self, session: AsyncSession, new: list[NewRun]) -> int:
        return await enqueue_many(session, new, now=now())

    async def _enqueue(self, session: AsyncSession, new: NewRun) -> UUID:
        return await enqueue(
            session,
            now=now(),
            job=new.job,
            trigger=new.trigger,
            arguments=new.arguments,
            owner_id=new.owner_id,
            idempotency_key=new.idempotency_key,
        )

    async def _until_it_stands(self, work: Callable[[AsyncSession], Awaitable[Outcome]]) -> Outcome:
        while True:
            try:
                async with self._database.write() as session:
                    return await work(session)
            except (Conflict, NotFound):
                raise
            except Exception as error:
                log.warning("producer.tries_again", error=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(PAUSE_S)

    async def _pace(self, part_done: float, rng: random.Random) -> None:
        """Wait until it is time for more: all is to be asked for within nine tenths of the time."""
        due = self._began + part_done * 0.9 * self._plan.seconds + rng.uniform(0, 0.2)
        await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _note(self, titles: Iterable[str]) -> None:
        self._accepted.write(json.dumps(list(titles)) + "\n")

    def _rng(self, of: str) -> random.Random:
        return random.Random(f"{self._plan.seed}/{of}")


async def produce(plan: Plan, ground: Mapping[str, Any], database_url: str) -> None:
    """Ask for all that the plan wants."""
    database = Database(database_url, pool_size=5)
    try:
        await Producer(plan, ground, database).run()
    finally:
        await database.dispose()


def main() -> None:
    """As a process."""
    plan = Plan.read(Path(sys.argv[1]))
    ground = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    settings = load_settings()
    configure_logging(settings)
    install_from_environment()
    uvloop.run(produce(plan, ground, settings.database_url))


if __name__ == "__main__":
    main()
