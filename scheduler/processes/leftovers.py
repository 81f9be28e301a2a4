"""What a process that was killed left behind: children without a parent, folders without an owner."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path


def process_birth(pid: int) -> str | None:
    """When the process `pid` began, as a text that only serves to compare; None if there is no such process.

    A pid alone says little, as numbers are used again; with the time of its birth it names one process for
    good.
    """
    try:
        # Field 22 of proc(5), counted after the name, which may hold spaces and brackets. A zombie is as good
        # as gone.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    answer = subprocess.run(  # nosec B607
        ["ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None


def end_process(pid: int, birth: str, seconds: float) -> None:
    """End a process that is not our child: ask, wait `seconds`, then kill. Does nothing if it is another one
    by now.
    """
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 2.0)):
        if process_birth(pid) != birth:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while process_birth(pid) == birth and time.monotonic() < deadline:
            time.sleep(0.02)


def remove_private_folder(folder: Path, prefix: str) -> None:
    """Remove a temporary folder that an earlier run of ours made (by `prefix`); anything not plainly that
    stays.
    """
    with contextlib.suppress(OSError):
        state = folder.lstat()
        ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and stat.S_IMODE(state.st_mode) == 0o700
        if ours and folder.name.startswith(prefix):
            shutil.rmtree(folder, ignore_errors=True)
