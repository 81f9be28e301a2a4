"""One round, from the first row to the verdict."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url

from bench.sink import SinkProcess
from tests.chaos import autopsy, load
from tests.chaos.findings import Verdict
from tests.chaos.plan import Plan
from tests.chaos.receiver import Receiver
from tests.chaos.records import client_faults
from tests.chaos.stage import ROOT, Stage
from tests.chaos.torment import torment
from tests.chaos.verdict import judge, unsettled
from tests.conftest import Stack
from tests.processes import spawn

SLOW_SINK_S = 0.02
"""The mail server takes so long over each message: kills are to fall between its answer and our commit."""
PRODUCER_MAY_TAKE_S = 30.0
"""After the last fault."""
ORPHANS_MAY_TAKE_S = 5.0


async def play(plan: Plan, stack: Stack, folder: Path) -> Verdict:
    """Play one round on a migrated, empty stack; logs and journals go to `folder`.

    Everything that was started has ended when this returns. Raises TimeoutError when it takes far too long.
    """
    url = make_url(stack.database_url)
    driver = "mysql+pymysql" if stack.mariadb is not None else "sqlite"
    engine = create_engine(url.set(drivername=driver), pool_pre_ping=True)
    sink = await asyncio.to_thread(SinkProcess)
    stages: list[Stage] = []
    try:
        async with asyncio.timeout(plan.hard_limit_s), Receiver(seed=plan.seed, refused=plan.refused) as receiver:
            stages.append(Stage(plan, stack, folder, sink.url, receiver.port))
            return await _play(plan, stages[0], engine, sink, receiver)
    finally:
        for stage in stages:
            stage.end()
        sink.stop()
        engine.dispose()


async def _play(plan: Plan, stage: Stage, engine: Engine, sink: SinkProcess, receiver: Receiver) -> Verdict:
    began = time.monotonic()
    ground = load.prepare(engine, plan)
    sink.slow_down(SLOW_SINK_S)
    await stage.start_workers()
    load.add_reminders(engine, plan, ground.people)
    producer = _start_producer(plan, stage, ground, receiver)
    try:
        tormented_at = time.monotonic()
        await torment(stage)
        stage.over_file.touch()
        sink.slow_down(0)
        over_at = time.monotonic()
        await _end_of_producer(producer, stage)
    finally:
        if producer.poll() is None:
            producer.kill()
            producer.wait(10)
    await asyncio.to_thread(load.pause_schedules, engine)
    left = await _settle(engine, stage, until=over_at + plan.settle_s)
    settled_at = time.monotonic()
    if left:
        await asyncio.to_thread(autopsy.keep_server, engine, stage.folder / "database-before-stop.txt")
    await stage.stop_workers()
    orphans = await _wait_for_orphans(stage)
    arrivals = sink.messages()
    await asyncio.to_thread(autopsy.keep, engine, arrivals, stage.folder)
    verdict = await asyncio.to_thread(judge, engine, stage, arrivals, receiver.answered)
    verdict.violations = stage.violations + verdict.violations
    if left:
        verdict.violations.insert(0, f"not at its end {settled_at - over_at:.0f} s after the last fault: {dict(left)}")
    verdict.hold("processes left behind", orphans)
    for what, count in sorted(stage.done.items()):
        verdict.count("done to processes and servers", what, count)
    for fault, count in sorted(Counter(each["fault"] for each in client_faults(stage.journal)).items()):
        verdict.count("done at the database client", fault, count)
    verdict.count("time", "seconds of chaos", f"{over_at - tormented_at:.0f}")
    verdict.count("time", "seconds until all was at its end", f"{settled_at - over_at:.0f}")
    verdict.count("time", "seconds in all", f"{time.monotonic() - began:.0f}")
    verdict.count("time", "worker processes started", len(stage.all_workers))
    return verdict


def _start_producer(plan: Plan, stage: Stage, ground: load.Ground, receiver: Receiver) -> subprocess.Popen[bytes]:
    plan_path, ground_path = stage.folder / "plan.json", stage.folder / "ground.json"
    plan.write(plan_path)
    said = {
        "people": [str(each) for each in ground.people],
        "queues": [str(each) for each in ground.queues],
        "receiver": receiver.url,
        "accepted": str(stage.folder / "accepted.log"),
    }
    ground_path.write_text(json.dumps(said), encoding="utf-8")
    with (stage.folder / "producer.log").open("wb") as log:
        process: subprocess.Popen[bytes] = spawn(
            [sys.executable, "-m", "tests.chaos.producer", str(plan_path), str(ground_path)],
            cwd=ROOT,
            env=stage.environment("producer"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return process


async def _end_of_producer(producer: subprocess.Popen[bytes], stage: Stage) -> None:
    async with asyncio.timeout(PRODUCER_MAY_TAKE_S):
        while producer.poll() is None:  # noqa: ASYNC110 (a process sets no event)
            await asyncio.sleep(0.1)
    if producer.returncode != 0:
        stage.violations.append(f"the producer ended with status {producer.returncode}; see producer.log")


async def _settle(engine: Engine, stage: Stage, *, until: float) -> Counter[str]:
    """Wait until everything is at its end; returns what is not, in time or because nothing moves any more."""
    least, moved_at = float("inf"), time.monotonic()
    while True:
        left = await asyncio.to_thread(unsettled, engine, stage)
        if not left or time.monotonic() > until or time.monotonic() - moved_at > stage.plan.stall_s:
            return left
        if left.total() < least:
            least, moved_at = left.total(), time.monotonic()
        await asyncio.sleep(0.5)


async def _wait_for_orphans(stage: Stage) -> list[int]:
    until = time.monotonic() + ORPHANS_MAY_TAKE_S
    while True:
        found = stage.left_behind()
        if not found or time.monotonic() > until:
            return found
        await asyncio.sleep(0.2)
