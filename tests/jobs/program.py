"""A worker of the service that knows some jobs more: innocent ones, and those that end the process they run in.

python -m tests.jobs.program     with the settings of the service, in the environment

Started again by itself with `--isolated` and `--lifeline-fd` it is the child that performs quarantined runs.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import insert

from jobs.performers import PERFORMERS
from jobs.work import Performer, Work
from models import User
from scheduler.runs.backoff import Backoff
from scheduler.runs.effect import succeed_with
from scheduler.runs.jobs import JOBS, Job
from scheduler.runs.running import JobFailed, RunningJob
from tests.factories import user_row

ROOT = Path(__file__).parents[2]


async def nothing(work: Work, run: RunningJob) -> None:
    """Does nothing."""


async def sleep(work: Work, run: RunningJob) -> dict[str, Any]:
    """Takes `seconds`, and says how far it has come."""
    seconds = float(run.arguments["seconds"])
    steps = max(1, round(seconds * 10))
    for step in range(steps):
        run.report_progress(step, steps)
        await asyncio.sleep(seconds / steps)
    run.report_progress(steps, steps)
    return {"slept": seconds}


async def insert_person(work: Work, run: RunningJob) -> dict[str, Any]:
    """Has an effect in the database that can be counted: a person, and the end of the run with it."""
    await asyncio.sleep(float(run.arguments.get("seconds", 0)))

    async def effect(session: Any) -> dict[str, Any]:
        row = user_row("x", email=f"{run.id}-{run.seq}@example.com")
        await session.execute(insert(User), [row])
        return {"user_id": str(row["id"])}

    return await succeed_with(work.database, run=run, effect=effect)


async def fail(work: Work, run: RunningJob) -> None:
    """Fails each time."""
    raise JobFailed("as it was told")


def _wait(run: RunningJob) -> asyncio.Future[None]:
    return asyncio.ensure_future(asyncio.sleep(float(run.arguments.get("seconds", 0))))


async def be_killed(work: Work, run: RunningJob) -> None:
    """As by the kernel, out of memory."""
    await _wait(run)
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(60)


async def crash(work: Work, run: RunningJob) -> None:
    """As by a mistake in a C library."""
    await _wait(run)
    ctypes.string_at(0)


async def leave(work: Work, run: RunningJob) -> NoReturn:
    """With nothing wrong, to all appearances."""
    await _wait(run)
    os._exit(0)


async def hang(work: Work, run: RunningJob) -> None:
    """Never comes back to the event loop."""
    await _wait(run)
    while True:
        pass


POISONS: dict[str, Performer] = {
    "be_killed": be_killed,
    "crash": crash,
    "leave": leave,
    "hang": hang,
}
MINE: dict[str, Performer] = {
    "nothing": nothing,
    "sleep": sleep,
    "insert_person": insert_person,
    "fail": fail,
    **POISONS,
}


def declare(jobs: MutableMapping[str, Job] = JOBS) -> None:
    """Make the jobs known to this process: three attempts each."""
    for name, perform in MINE.items():
        description = (perform.__doc__ or "").splitlines()[0]
        jobs[name] = Job(
            name=name,
            description=description,
            timeout_s=60,
            attempts=3,
            retry=Backoff(base_s=0.2, cap_s=1),
        )


def command(name: str, lifeline: int) -> list[str]:
    """This program as the child for quarantined runs."""
    return [sys.executable, "-m", "tests.jobs.program", f"--isolated={name}", f"--lifeline-fd={lifeline}"]


def main() -> None:
    """As `punctual worker`."""
    import uvloop

    from jobs.worker import run
    from scheduler.logs import configure_logging
    from scheduler.processes.lifeline import hold
    from scheduler.settings import load_settings

    parser = argparse.ArgumentParser()
    parser.add_argument("--isolated")
    parser.add_argument("--lifeline-fd", type=int)
    options = parser.parse_args()
    if options.lifeline_fd is not None:
        hold(options.lifeline_fd)
    declare()
    settings = load_settings()
    configure_logging(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, performers=PERFORMERS | MINE, isolated=options.isolated, command=command))


if __name__ == "__main__":
    main()
