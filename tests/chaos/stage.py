"""The processes of a round: worker after worker in so many slots, and the producer; each with a log of its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import client_faults
from tests.chaos.plan import Plan
from tests.conftest import Stack
from tests.processes import spawn

ROOT = Path(__file__).parents[2]
STARTED = b"worker.started"
LOOK_EVERY_S = 0.05
STOP_SLACK_S = 6.0
"""Beyond the grace time, on a machine that is busy with everything else."""


@dataclass
class WorkerProcess:
    """One worker, from its start to its end."""

    process: subprocess.Popen[bytes]
    log_path: Path
    signalled: str | None = None
    """What it was sent that ends it."""
    signalled_at: float | None = None
    """When, in POSIX seconds."""
    stop_since: float | None = None
    """When it was told to stop, on the monotonic clock; later by as long as it was suspended."""
    suspended_since: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or is suspended."""
        return self.process.poll() is None

    @property
    def has_started(self) -> bool:
        """Whether it has begun to work, and handles signals."""
        return STARTED in self.log_path.read_bytes()[:20_000]

    def kill(self) -> None:
        """SIGKILL."""
        self.signalled, self.signalled_at = "SIGKILL", time.time()
        self.process.kill()

    def terminate(self) -> None:
        """SIGTERM."""
        self.signalled, self.signalled_at = "SIGTERM", time.time()
        self.stop_since = time.monotonic()
        self.process.send_signal(signal.SIGTERM)

    def suspend(self) -> None:
        """SIGSTOP: as a machine that is suspended; its clocks go on."""
        self.suspended_since = time.monotonic()
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self.suspended_since is None:
            return
        if self.stop_since is not None:
            self.stop_since += time.monotonic() - self.suspended_since
        self.suspended_since = None
        if self.is_alive:
            self.process.send_signal(signal.SIGCONT)


@dataclass
class Stage:
    """Everything that runs in a round."""

    plan: Plan
    stack: Stack
    folder: Path
    mail_url: str
    receiver_port: int
    done: Counter[str] = field(default_factory=Counter)
    """What was done to whom, how often."""
    repeats_explained_at: list[float] = field(default_factory=list)
    """When a worker or the database was hit: an e-mail that is under way just then may come twice. POSIX seconds."""
    violations: list[str] = field(default_factory=list)
    slots: list[WorkerProcess] = field(default_factory=list)
    all_workers: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.plan.seed}/restarts")
        self._keepers: list[asyncio.Task[None]] = []
        self.journal = self.folder / "client-faults.jsonl"
        self.over_file = client_faults.over_file(self.journal)

    # -- workers ---------------------------------------------------------------------------------------------

    async def start_workers(self, *, within_s: float = 60) -> None:
        """All of them; each is followed by another when it ends. Returns when they are at work."""
        for slot in range(self.plan.workers):
            self.slots.append(self._start_worker())
            self._keepers.append(asyncio.create_task(self._keep(slot)))
        async with asyncio.timeout(within_s):
            while not all(worker.has_started for worker in self.slots):  # noqa: ASYNC110 (a process sets no event)
                await asyncio.sleep(LOOK_EVERY_S)

    async def stop_workers(self) -> None:
        """In order: SIGTERM to all, and each must exit with 0 in time."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for worker in self.slots:
            worker.resume()
            if worker.is_alive:
                worker.terminate()
        for worker in self.slots:
            await self._end_of(worker)

    def end(self) -> None:
        """Whatever still runs ends now."""
        for keeper in self._keepers:
            keeper.cancel()
        for worker in self.all_workers:
            if worker.is_alive:
                worker.process.kill()
                worker.process.wait(10)

    def note(self, what: str, **more: object) -> None:
        """Count what was done, and keep when it was."""
        self.done[what] += 1
        if not what.startswith("Redis"):
            self.repeats_explained_at.append(time.time())
        with (self.folder / "torment.log").open("a", encoding="utf-8") as log:
            print(f"{time.time():.3f} {what}", *(f"{key}={value}" for key, value in more.items()), file=log)

    def _start_worker(self) -> WorkerProcess:
        number = len(self.all_workers)
        log_path = self.folder / f"worker-{number}.log"
        with log_path.open("ab") as log:
            process = spawn(
                [sys.executable, "-m", "tests.chaos.worker"],
                cwd=ROOT,
                env=self.environment(f"worker-{number}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        worker = WorkerProcess(process, log_path)
        self.all_workers.append(worker)
        return worker

    async def _keep(self, slot: int) -> None:
        """When the slot's worker ends, start another a moment later."""
        while True:
            await self._end_of(self.slots[slot])
            await asyncio.sleep(self._random.choice((0.0, 0.3, 1.0, 2.5)))
            self.slots[slot] = self._start_worker()

    async def _end_of(self, worker: WorkerProcess) -> None:
        """Wait for it; say so if it ended otherwise than it was told."""
        name = worker.log_path.stem
        while worker.is_alive:
            stop_since = worker.stop_since if worker.suspended_since is None else None
            if stop_since is not None and time.monotonic() - stop_since > self.plan.grace_s + STOP_SLACK_S:
                self.violations.append(f"{name} did not stop within {self.plan.grace_s + STOP_SLACK_S:g} s of SIGTERM")
                worker.kill()
            await asyncio.sleep(LOOK_EVERY_S)
        status = worker.process.returncode
        if worker.signalled is None:
            self.violations.append(f"{name} ended by itself, with status {status}")
        elif (
            worker.signalled == "SIGTERM" and status != 0 and not (status == -signal.SIGTERM and not worker.has_started)
        ):
            self.violations.append(f"{name} was told to stop (SIGTERM), and ended with status {status}")

    # -- environment -----------------------------------------------------------------------------------------

    def environment(self, process: str) -> dict[str, str]:
        """Of one of the round's processes."""
        environment = self.stack.environment(
            mail_url=self.mail_url,
            grace_seconds=self.plan.grace_s,
            worker_concurrency=self.plan.concurrency,
            allowed_private_hosts=f"127.0.0.1:{self.receiver_port}",
        )
        if self.plan.client_fault_rate and self.stack.mariadb is not None:
            environment |= client_faults.environment(
                seed=f"{self.plan.seed}/{process}", journal=self.journal, rate=self.plan.client_fault_rate
            )
        return environment | {"CHAOS_FOLDER": str(self.folder)}

    def left_behind(self) -> list[int]:
        """Processes of this round that still run (the isolated children of workers among them). Linux only."""
        mark = f"CHAOS_FOLDER={self.folder}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in entry.read_bytes().split(b"\0"):
                    found.append(int(entry.parent.name))
            except OSError:  # gone, or somebody else's
                continue
        return [pid for pid in found if pid != os.getpid()]
