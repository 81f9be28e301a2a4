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
from collections.abc import Callable
from contextlib import suppress
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
from scheduler.runs.heartbeat import STRANGER_S
from scheduler.runs.recover import DEAD_AFTER_S, Sighting, Watch, bury
from scheduler.runs.take import take_quarantined

IDLE_S = 2.0
"""How long the process waits for another run before it ends: its start costs more than some waiting."""
LOOK_EVERY_S = 0.2
AGAIN_S = 1.0
STUCK_AFTER_S = DEAD_AFTER_S - 3
"""A child whose beat stands still for so long is stuck in its job. We say so before others take it for dead."""
LONGEST_LAST_WORDS = 10_000  # bytes of standard error

log = get_logger("isolation")

Command = Callable[[str, int], list[str]]
"""The command line of a child, from its name and the descriptor of its lifeline."""


def isolated_command(name: str, lifeline: int) -> list[str]:
    """The child as the product's own worker."""
    return punctual_command("worker", f"--isolated={name}", f"--lifeline-fd={lifeline}")


class Isolation:
    """Keeps one child process for quarantined runs, while there are any, and says what it died of."""

    def __init__(self, database: Database, *, worker: str, command: Command = isolated_command) -> None:
        self._database = database
        self._worker = worker
        self._command = command
        self._wanted = asyncio.Event()
        self._child: Popen[bytes] | None = None
        # Open as long as this process lives: a child that loses it has little time left.
        self._lifeline = Lifeline()

    def wake(self) -> None:
        """There are quarantined runs."""
        self._wanted.set()

    async def run(self) -> None:
        """Start a child when there is need of one, until cancelled; then tell it to stop."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._one_child()
                await asyncio.sleep(AGAIN_S)
        finally:
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()

    async def stopped(self) -> None:
        """Wait until the child is gone; it was told to stop, and hands back what it is at."""
        if self._child is not None:
            await _ended(self._child)

    async def _one_child(self) -> None:
        with tempfile.TemporaryFile() as last_words:
            name = f"{socket.gethostname()}:{os.getpid()}:isolated-{secrets.token_hex(2)}"
            lifeline = self._lifeline.read_end
            child = self._child = spawn(
                self._command(name, lifeline), descriptors=[lifeline], errors=last_words.fileno()
            )
            log.info("isolation.started", worker=name)
            ended = asyncio.create_task(_ended(child))
            try:
                was_stuck = await self._watch(child, name, ended)
                cause = STUCK if was_stuck else _cause(await ended)
            finally:
                ended.cancel()
            await self._report(name, cause, _tail(last_words))

    async def _watch(self, child: Popen[bytes], name: str, ended: asyncio.Task[int]) -> bool:
        """Wait for its end, and bring it about when it is stuck; returns whether it was."""
        watch = Watch(me=self._worker, dead_after_s=STUCK_AFTER_S)
        while not (await asyncio.wait([ended], timeout=1))[0]:
            with suppress(Exception):  # the database is away: then nobody can beat
                async with self._database.read() as session:
                    silent, _ = await watch.look(session)
                if any(each.name == name and each.beat is not None for each in silent):
                    child.send_signal(signal.SIGABRT)  # so that it says where it is
                    if not (await asyncio.wait([ended], timeout=2))[0]:
                        child.kill()
                    return True
        return False

    async def _report(self, name: str, cause: str, last_words: str) -> None:
        """The child is gone, and what it was at it has died of. (Leaving in order, it is at nothing.)"""
        error = {"type": "ProcessDied", "message": cause, "traceback": last_words or None}
        while True:
            try:
                async with self._database.write() as session:
                    beat = (await session.execute(select(Worker.beat).where(Worker.name == name))).scalar_one_or_none()
                    if await bury(session, dead=Sighting(name, beat), now=now(), error=error):
                        log.warning("isolation.died", worker=name, cause=cause)
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
        run = None
        try:
            async with work.database.write() as session:
                run = await take_quarantined(session, queues=work.settings.worker_queues, worker=work.name, now=now())
        except Exception as error:
            if not is_unavailable(error):
                raise
            # It may have landed. To leave now would look as if the run had been the end of us: the beat gives it back.
            idle_since = time.monotonic() + STRANGER_S
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


STUCK = "it was stuck: the process that performed it did nothing else any more, and was ended"


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
