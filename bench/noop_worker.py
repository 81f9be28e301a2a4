"""A worker of the service that knows one job more: `noop`, which does nothing.

python -m bench.noop_worker     with the settings of the service, in the environment
"""

from __future__ import annotations

import asyncio

import uvloop

from jobs.performers import PERFORMERS
from jobs.work import Work
from jobs.worker import run
from scheduler.logs import configure_logging
from scheduler.runs.jobs import JOBS, Job
from scheduler.runs.running import RunningJob
from scheduler.settings import load_settings

NOOP = "noop"


async def noop(work: Work, run: RunningJob) -> None:
    """What is measured is all that is around it."""


def declare() -> None:
    """Make the job known to this process."""
    JOBS[NOOP] = Job(name=NOOP, description="Does nothing.", timeout_s=60)


def main() -> None:
    """As `punctual worker`."""
    declare()
    settings = load_settings()
    configure_logging(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, performers={**PERFORMERS, NOOP: noop}))


if __name__ == "__main__":
    main()
