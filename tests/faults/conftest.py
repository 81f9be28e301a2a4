"""Real workers as processes of their own, a real SMTP sink, and the ledger read from beside them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, select, text, update

from bench.sink import SinkProcess
from models import Reminder
from tests.conftest import Stack
from tests.factories import seed_due_reminders
from tests.processes import spawn

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait for `condition`; fail, naming `what`, when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.05)


@dataclass
class Scene:
    """A stack with reminders, a sink, and any number of workers."""

    stack: Stack
    sink: SinkProcess
    log_folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    grace_seconds: int = 10

    def __post_init__(self) -> None:
        url = make_url(self.stack.database_url)
        driver = "mysql+pymysql" if url.get_backend_name() == "mysql" else "sqlite"
        self.engine = create_engine(url.set(drivername=driver), pool_pre_ping=True)

    def seed(self, reminders: int, *, people: int = 50, due_in_s: float = 0.0) -> None:
        """Reminders that are all due at one instant."""
        fire_at = datetime.now(UTC) + timedelta(seconds=due_in_s)
        seed_due_reminders(self.stack.database_url, reminders=reminders, people=people, fire_at=fire_at)

    def make_due(self, count: int, *, in_s: float) -> float:
        """Move that many pending reminders to one instant; returns it in POSIX seconds."""
        fire_at = datetime.now(UTC) + timedelta(seconds=in_s)
        pending = select(Reminder.id).where(Reminder.state == "pending").limit(count)
        with self.engine.begin() as connection:
            ids = connection.execute(pending).scalars().all()
            connection.execute(update(Reminder.__table__).where(Reminder.id.in_(ids)).values(fire_at=fire_at))
        assert len(ids) == count
        return fire_at.timestamp()

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker process; its log lines are kept."""
        environment = self.stack.environment(mail_url=self.sink.url, grace_seconds=self.grace_seconds)
        with (self.log_folder / f"worker-{len(self.workers)}.log").open("wb") as log:
            worker = spawn(
                [sys.executable, "-m", "punctual", "worker"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGKILL."""
        worker.kill()
        worker.wait(10)

    def terminate(self, worker: subprocess.Popen[bytes]) -> float:
        """SIGTERM; the worker must drain and exit 0. Returns how many seconds it took."""
        start = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(self.grace_seconds + 5) == 0
        return time.monotonic() - start

    def rows(self, query: str) -> list[Any]:
        """What the database answers."""
        with self.engine.connect() as connection:
            return list(connection.execute(text(query)))

    def states(self, table: str) -> dict[str, int]:
        """How many rows of a table are in which state."""
        return dict(self.rows(f"SELECT state, count(*) FROM {table} GROUP BY state"))

    def in_doubt(self) -> set[str]:
        """Message-IDs that somebody was at sending."""
        return {row[0] for row in self.rows("SELECT message_id FROM email WHERE state = 'sending'")}

    def wait_until_all_sent(self, reminders: int, *, seconds: float) -> None:
        """Every reminder ends as `sent`."""
        wait_until(
            lambda: self.states("reminder") == {"sent": reminders},
            seconds=seconds,
            what=f"{reminders} reminders sent",
        )

    def wait_until_sink_has(self, count: int, *, seconds: float) -> None:
        """So many messages have come, or more."""
        wait_until(lambda: self.sink.count() >= count, seconds=seconds, what=f"{count} messages at the sink")

    def arrivals(self) -> Counter[str]:
        """How often each Message-ID came to the sink."""
        return Counter(arrival.message_id for arrival in self.sink.messages())

    def check_one_each(self, reminders: int, *, may_repeat: set[str] | None = None) -> int:
        """A message for each reminder, each told once in the ledger; returns how many messages were
        repeats."""
        arrivals = self.arrivals()
        sent = {row[0] for row in self.rows("SELECT message_id FROM email WHERE state = 'sent'")}
        assert set(arrivals) == sent
        assert len(sent) == reminders
        assert self.states("delivery") == {"sent": reminders}
        repeated = {message_id for message_id, count in arrivals.items() if count > 1}
        assert repeated <= (may_repeat or set())
        return arrivals.total() - len(arrivals)

    def events(self) -> list[dict[str, Any]]:
        """All log lines of all workers."""
        lines = []
        for path in sorted(self.log_folder.glob("worker-*.log")):
            for line in path.read_text(encoding="utf-8").splitlines():
                assert line.startswith("{"), f"not a JSON line on standard output: {line!r}"
                lines.append(json.loads(line))
        return lines

    def close(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            if worker.poll() is None:
                self.kill(worker)
        self.engine.dispose()


@pytest.fixture
def scene(stack: Stack, tmp_path: Path) -> Iterator[Scene]:
    """The stack with a sink of its own."""
    sink = SinkProcess()
    log_folder = tmp_path / "logs"
    log_folder.mkdir()
    made = Scene(stack, sink, log_folder)
    yield made
    made.close()
    sink.stop()
