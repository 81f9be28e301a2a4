"""Isolation: a run at which a worker died is tried alone, in a process of its own, which may die of it."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from subprocess import Popen
from typing import IO

from sqlalchemy import select

from jobs.work import Work
from models import Worker
from scheduler.clock import now
from scheduler.database import Database, is_unavailable
from scheduler.logs import get_logger
from scheduler.processes.commands import punctual_command
from scheduler.processes.lifeline import Lifeline, spawn
from scheduler.runs.recover import Sighting, bury
from scheduler.runs.take import take_quarantined

IDLE_S = 2.0
"""How long the process waits for another run before it ends: its start costs more than some waiting."""
LOOK_EVERY_S = 0.2
AGAIN_S = 1.0
LONGEST_LAST_WORDS = 10_000  # bytes of standard error

log = get_logger("isolation")


class Isolation:
    """Keeps one child process for quarantined runs, while there are any, and says what it died of."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted = asyncio.Event()
        self._child: Popen[bytes] | None = None

    def wake(self) -> None:
        """There are quarantined runs."""
        self._wanted.set()

    async def run(self) -> None:
        """Start a child when there is need of one, until cancelled; then stop it in order."""
        lifeline = Lifeline()
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._one_child(lifeline)
                await asyncio.sleep(AGAIN_S)
        finally:
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
            lifeline.close()

    async def stopped(self) -> None:
        """Wait until the child is gone; it was told to stop."""
        if self._child is not None:
            await _ended(self._child)

    async def _one_child(self, lifeline: Lifeline) -> None:
        with tempfile.TemporaryFile() as last_words:
            name = f"{socket.gethostname()}:{os.getpid()}:isolated-{secrets.token_hex(2)}"
            command = punctual_command("worker", f"--isolated={name}", f"--lifeline-fd={lifeline.read_end}")
            child = self._child = spawn(command, descriptors=[lifeline.read_end], errors=last_words.fileno())
            log.info("isolation.started", worker=name)
            status = await _ended(child)
            if status != 0:
                await self._report(name, status, _tail(last_words))

    async def _report(self, name: str, status: int, last_words: str) -> None:
        """The child died: of the run that it was at."""
        error = {"type": "ProcessDied", "message": _cause(status), "traceback": last_words or None}
        log.warning("isolation.died", worker=name, cause=error["message"])
        while True:
            try:
                async with self._database.write() as session:
                    beat = (await session.execute(select(Worker.beat).where(Worker.name == name))).scalar_one_or_none()
                    await bury(session, dead=Sighting(name, beat), now=now(), error=error)
            except Exception as failure:
                if not is_unavailable(failure):
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                return


async def perform_quarantined(work: Work, stop: asyncio.Event) -> None:
    """The child's side: one run after the other, each alone, until there is none for a while."""
    faulthandler.enable()  # what a crash has to say goes to standard error, which the parent keeps
    idle_since = time.monotonic()
    while not stop.is_set() and time.monotonic() - idle_since < IDLE_S:
        async with work.database.write() as session:
            run = await take_quarantined(session, queues=work.settings.worker_queues, worker=work.name, now=now())
        if run is None:
            await asyncio.sleep(LOOK_EVERY_S)
            continue
        task = work.executor.start(run)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if task.done():
            await work.settler.drained()
        idle_since = time.monotonic()


async def _ended(child: Popen[bytes]) -> int:
    """Wait for its end; returns its status."""
    while (status := child.poll()) is None:  # noqa: ASYNC110 (a process sets no event)
        await asyncio.sleep(LOOK_EVERY_S / 2)
    return status


def _cause(status: int) -> str:
    if status >= 0:
        return f"the process that performed it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (often: out of memory)" if -status == signal.SIGKILL else ""
    return f"the process that performed it was ended by {name}{hint}"


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LONGEST_LAST_WORDS))
    text = file.read().decode(errors="replace")
    if text:
        sys.stderr.write(text)  # what is kept in the run is not kept from the operator
    return text
