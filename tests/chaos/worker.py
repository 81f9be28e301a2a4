"""`punctual worker`, to whose database connections faults happen: the same worker, with another connection class."""

from __future__ import annotations

import argparse
import sys

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
    install_from_environment("isolated" if options.isolated else "")
    uvloop.run(run(settings, isolated=options.isolated, command=isolated_command))


def isolated_command(name: str, lifeline: int) -> list[str]:
    """The child that performs quarantined runs: the same happens to its connections."""
    return [sys.executable, "-m", "tests.chaos.worker", f"--isolated={name}", f"--lifeline-fd={lifeline}"]


if __name__ == "__main__":
    main()
