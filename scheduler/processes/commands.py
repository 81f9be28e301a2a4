"""How to run one of our own commands: from a supervisor, and as a person would type it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

COMMAND_LINE = Path(__file__).resolve().parents[2] / "punctual.py"


def punctual_command(*arguments: str) -> list[str]:
    """The command line of `punctual` with this interpreter.

    By the file and not by `-m`, which would put the present folder first on the path: there may be another
    `web` in it.
    """
    return [sys.executable, str(COMMAND_LINE), *arguments]


def typed_name() -> str:
    """What to type for `punctual` here: the bare name if the PATH has ours, else the path of the script."""
    script = Path(sys.executable).parent / "punctual"
    found = shutil.which("punctual")
    if found is not None and Path(found).resolve() == script.resolve():
        return "punctual"
    if not script.exists():
        return f"{sys.executable} -m punctual"
    try:
        return os.path.join(".", script.relative_to(Path.cwd())).removeprefix("./")
    except ValueError:
        return str(script)


def serving_command(sockets: Sequence[int], ready: int, lifeline: int) -> list[str]:
    """The command line of one serving process of `punctual web`, from the descriptors that it inherits."""
    listen = [f"--listen-fd={descriptor}" for descriptor in sockets]
    return punctual_command("web", *listen, f"--ready-fd={ready}", f"--lifeline-fd={lifeline}")
