"""`punctual worker` processes under measurement, and how quickly they send what is due."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.measure import BenchError, Rate, wait_until
from bench.seed import make_due, seed, states
from bench.sink import ROOT
from bench.surroundings import Surroundings
from tests.processes import spawn

READY = b"worker.queue_connected"
"""The log event after which a worker waits for work."""

LONGEST_SECONDS = 120.0


PUNCTUAL_WORKER = (str(Path(sys.executable).with_name("punctual")), "worker")


@contextlib.contextmanager
def workers(
    on: Surroundings, count: int, *, command: Sequence[str] = PUNCTUAL_WORKER, settings: Mapping[str, str] | None = None
) -> Iterator[None]:
    """So many worker processes, ready and idle; ended in order with the block. Raises BenchError.

    `settings`: more of the environment than all have.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PUNCTUAL_")}
    environment |= {
        "PUNCTUAL_DATABASE_URL": on.database_url.replace("+aiomysql", ""),
        "PUNCTUAL_REDIS_URL": on.redis.url,
        "PUNCTUAL_MAIL_URL": on.sink.url,
        "PUNCTUAL_DATA_DIR": str(on.mariadb.folder / "punctual"),
        "PUNCTUAL_PUBLIC_URL": "https://punctual.example",
        **(settings or {}),
    }
    processes: list[subprocess.Popen[bytes]] = []
    logs: list[Path] = []
    try:
        for number in range(count):
            logs.append(on.mariadb.folder / f"worker-{number}.log")
            with open(logs[-1], "wb") as log:
                processes.append(
                    spawn(
                        command,
                        cwd=ROOT,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        for process, path in zip(processes, logs, strict=True):
            try:
                wait_until(lambda path=path: READY in path.read_bytes(), 20, "a worker")  # type: ignore[misc]
            except BenchError as error:
                raise BenchError(f"{error} (exit status {process.poll()})\n{_tail(path)}") from None
        time.sleep(1.5)  # a tick or two, so that what happens once has happened
        yield
        for process, path in zip(processes, logs, strict=True):
            if process.poll() is not None:
                raise BenchError(f"a worker ended by itself: {process.returncode}\n{_tail(path)}")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:]


def throughput(on: Surroundings, *, processes: int, reminders: int, people: int) -> Rate:
    """From the instant at which all are due, in an idle service, until the sink has every message.

    Checks that the database says `sent` of every reminder and that each has one message. Raises BenchError.
    """
    seed(on, reminders=reminders, people=people)
    on.redis.flushall()
    on.sink.reset()
    with workers(on, processes):
        due_at = float(int(time.time()) + 4)
        make_due(on, due_at)
        if time.time() > due_at - 0.5:
            raise BenchError("the rows took too long to be made due; this machine is too busy")
        time.sleep(due_at - 0.2 - time.time())
        questions = on.mariadb.status("Questions")
        try:
            wait_until(lambda: on.sink.count() >= reminders, LONGEST_SECONDS, "our messages")
            wait_until(lambda: states(on) == {"sent": reminders}, 20, "our rows, all `sent`", every=0.2)
        except BenchError as error:
            raise BenchError(f"{error}: {on.sink.count()} messages, {states(on)}") from None
        questions = on.mariadb.status("Questions") - questions
    messages = on.sink.messages()
    distinct = len({message.message_id for message in messages})
    if not len(messages) == distinct == reminders:
        raise BenchError(f"{len(messages)} messages with {distinct} Message-IDs for {reminders} reminders")
    return Rate(reminders, messages[-1].wall - due_at, statements=questions)
