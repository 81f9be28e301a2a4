"""The watchdog: a process whose event loop comes to nothing any more is ended, so that it is started anew."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading

LOOKS = 30
"""So many looks, a second apart, must all find the loop standing still. Counted and not measured: a process that was
suspended, or a machine that slept, wakes up with a long time gone and nothing wrong."""
LOOK_EVERY_S = 1.0
STATUS = 70
"""EX_SOFTWARE of sysexits.h."""


async def watchdog(*, looks: int = LOOKS, look_every_s: float = LOOK_EVERY_S) -> None:
    """Beat for a thread that watches; return never. When the loop has not come round for `looks` looks, the thread says
    on standard error where each thread stands, and ends the process.

    Others take over what it was at as soon as its heartbeat fails; but where it is the only worker there are no others
    until whoever supervises it starts it again.
    """
    beats = 0
    ended = threading.Event()

    def watch() -> None:
        seen, still = -1, 0
        while not ended.wait(look_every_s):
            still = still + 1 if beats == seen else 0
            seen = beats
            if still >= looks:
                try:
                    sys.stderr.write(f"the event loop has stood still for {looks * look_every_s:g} s; ending\n")
                    faulthandler.dump_traceback(all_threads=True)
                finally:  # nobody reads what it says: it ends all the same
                    os._exit(STATUS)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        while True:
            beats += 1
            await asyncio.sleep(look_every_s / 2)
    finally:
        ended.set()
