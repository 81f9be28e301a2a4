"""A process whose event loop stands still is ended; one that was merely stopped, or is busy, is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from jobs.watchdog import STATUS
from tests.jobs.program import ROOT

LOOKS, LOOK_EVERY_S = 8, 0.2
"""Long enough for a machine that is busy with other tests."""

PROGRAM = f"""
import asyncio, sys, time
from jobs.watchdog import watchdog

def hang():
    while True:
        time.sleep(0.01)

async def main():
    task = asyncio.create_task(watchdog(looks={LOOKS}, look_every_s={LOOK_EVERY_S}))
    await asyncio.sleep(0.1)
    print("ready", flush=True)
    if sys.argv[1] == "hang":
        hang()
    for _ in range(10):
        await asyncio.sleep(0)
        time.sleep({LOOK_EVERY_S} / 2)  # busy, but it comes round
    task.cancel()
    await asyncio.wait([task])
    time.sleep({1.5 * LOOKS * LOOK_EVERY_S})  # nobody watches any more
    print("done", flush=True)

asyncio.run(main())
"""


def start(what: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_loop_that_stands_still_is_ended_and_says_where() -> None:
    process = start("hang")
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (STATUS, "")
    assert "stood still" in said and "in hang" in said


def test_one_that_is_busy_goes_on_and_so_does_one_that_was_suspended() -> None:
    process = start("work")
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.5 * LOOKS * LOOK_EVERY_S)
    os.kill(process.pid, signal.SIGCONT)
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out, said) == (0, "done\n", "")
