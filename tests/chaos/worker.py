"""`punctual worker`, to whose database connections faults happen: the same worker, with another connection class."""

from __future__ import annotations

import argparse

import uvloop

from jobs.worker import run
from scheduler.logs import configure_logging
from scheduler.processes.lifeline import hold
from scheduler.settings import load_settings
from tests.chaos.client_faults import install_from_environment


def main() -> None:
    """What the command line does for `punctual worker`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--isolated")
    parser.add_argument("--lifeline-fd", type=int)
    options = parser.parse_args()
    if options.lifeline_fd is not None:
        hold(options.lifeline_fd)
    settings = load_settings()
    configure_logging(settings)
    install_from_environment()
    uvloop.run(run(settings, isolated=options.isolated))


if __name__ == "__main__":
    main()
