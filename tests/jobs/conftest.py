"""Whole workers, in this process and in processes of their own, with jobs of the tests."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jobs.performers import PERFORMERS
from jobs.work import Performer
from jobs.worker import run
from models.run import RunTrigger
from scheduler.clock import now
from scheduler.database import Database
from scheduler.redis_client import redis_client
from scheduler.runs.enqueue import enqueue
from scheduler.runs.jobs import JOBS
from scheduler.runs.running import AT_WORK
from scheduler.runs.wake import wake_workers
from scheduler.settings import Settings
from tests.conftest import Stack
from tests.jobs import program
from tests.processes import spawn


@pytest.fixture(autouse=True)
def declared() -> Iterator[None]:
    """The program's jobs, known to this process for as long as the test runs."""
    before = dict(JOBS)
    program.declare()
    yield
    JOBS.clear()
    JOBS.update(before)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a worker in this process changes of the process."""
    threshold, at_work = gc.get_threshold(), set(AT_WORK)
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    AT_WORK.clear()
    AT_WORK.update(at_work)


@asynccontextmanager
async def working(
    settings: Settings, *, performers: Mapping[str, Performer] = program.MINE, **changes: Any
) -> AsyncIterator[asyncio.Event]:
    """A whole worker in this process; gives what stops it. It must end in order, and in its time."""
    settings = settings.model_copy(update={"grace_seconds": 5} | changes)
    os.environ["PUNCTUAL_GRACE_SECONDS"] = str(settings.grace_seconds)  # for the child of quarantined runs
    stop = asyncio.Event()
    worker = asyncio.create_task(
        run(settings, stop=stop, performers={**PERFORMERS, **performers}, command=program.command)
    )
    try:
        yield stop
        assert not worker.done()
    finally:
        stop.set()
        done, _ = await asyncio.wait([worker], timeout=settings.grace_seconds + 5)
        assert done, "it did not end in its time"
        os.environ.pop("PUNCTUAL_GRACE_SECONDS", None)
        worker.result()


async def ask(database: Database, job: str, *, redis_url: str | None = None, **arguments: Any) -> UUID:
    """Ask for a run as the API does: a transaction, and then a word to the workers."""
    async with database.write() as session:
        run_id = await enqueue(session, job=job, trigger=RunTrigger.MANUAL, arguments=arguments, now=now())
    if redis_url is not None:
        client = redis_client(redis_url, timeout_s=1)
        await wake_workers(client)
        await client.aclose()
    return run_id


@dataclass
class Processes:
    """Workers as processes of their own; they end with the test."""

    stack: Stack
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, **settings: Any) -> subprocess.Popen[bytes]:
        """One more."""
        environment = self.stack.environment(**({"grace_seconds": 6} | settings))
        command = [sys.executable, "-m", "tests.jobs.program"]
        with (self.folder / f"worker-{len(self.started)}.log").open("wb") as log:
            process = spawn(command, cwd=program.ROOT, env=environment, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def lines(self) -> list[dict[str, Any]]:
        """What they logged."""
        return [
            json.loads(line)
            for path in sorted(self.folder.glob("worker-*.log"))
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("{")
        ]

    def ends(self) -> dict[str, list[str]]:
        """The records that end runs, by run, of the program's own jobs."""
        final = {f"run.{state}" for state in ("succeeded", "failed", "cancelled", "lost", "skipped")}
        found: dict[str, list[str]] = {}
        for line in self.lines():
            if line["event"] in final and line["job"] in program.MINE:
                found.setdefault(line["run_id"], []).append(line["event"])
        return found


@pytest.fixture
def processes(stack: Stack, tmp_path: Path) -> Iterator[Processes]:
    folder = tmp_path / "logs"
    folder.mkdir()
    made = Processes(stack, folder)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.wait()
