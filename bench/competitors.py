"""Runs the peers (bench/peers) in their own environment and measures them at the same sink as ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import BenchError, Rate, wait_until
from bench.sink import ROOT, SinkProcess
from tests.processes import spawn
from tests.servers import MariaDBServer, RedisServer

PEERS = ROOT / "bench" / "peers"
ENVIRONMENT = ROOT / "bench" / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
DATABASE = "celery_peer"
LONGEST_SECONDS = 400.0


def make_environment() -> None:
    """Install the peers' locked packages; quick when they are there. Raises BenchError."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        raise BenchError("uv is not in this environment: run `make bench`, which puts it there")
    locked = PEERS / "requirements-peers.txt"
    commands = [["pip", "sync", "--quiet", "--python", str(PYTHON), "--require-hashes", str(locked)]]
    if not PYTHON.exists():
        commands.insert(0, ["venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)])
    for command in commands:
        if subprocess.run([str(uv), *command]).returncode != 0:
            raise BenchError("the peers' environment could not be made")


def plain_loop(sink: SinkProcess, how: str, *, messages: int, people: int) -> Rate:
    """aiosmtplib over 8 kept connections: `send_message` (EmailMessage objects) or `sendmail` (bytes)."""
    sink.reset()
    result = subprocess.run(
        [
            str(PYTHON),
            "plain_loop.py",
            how,
            str(sink.port),
            "--messages",
            str(messages),
            "--people",
            str(people),
        ],
        cwd=PEERS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=LONGEST_SECONDS,
        text=True,
    )
    if result.returncode != 0 or sink.count() != messages:
        raise BenchError(f"the loop with {how} sent {sink.count()} of {messages} messages")
    report = json.loads(result.stdout)
    return Rate(report["n"], report["seconds"])


@contextlib.contextmanager
def peer_worker(
    command: list[str], *, environment: dict[str, str], log_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of a peer and the children it forks, ended with the block."""
    with open(log_path, "wb") as log:
        process = spawn(
            command,
            cwd=PEERS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children are in its session, which is ours to end
            process.wait()


class CeleryPeer:
    """The Celery worker with its own tables on our MariaDB and its own database number on our Redis."""

    def __init__(self, mariadb: MariaDBServer, redis: RedisServer, sink: SinkProcess) -> None:
        self.mariadb, self.redis, self.sink = mariadb, redis, sink
        mariadb.drop_database(DATABASE)
        mariadb.create_database(DATABASE)
        statements = (PEERS / "tables.sql").read_text().split(";")
        with mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
            for statement in filter(str.strip, statements):
                cursor.execute(statement)

    def _environment(self, prefetch: int) -> dict[str, str]:
        return {
            **os.environ,
            "PEER_DATABASE": self.mariadb.url(DATABASE, "mysql+pymysql"),
            "PEER_REDIS": self.redis.url.removesuffix("/0") + "/1",
            "PEER_SMTP_PORT": str(self.sink.port),
            "PEER_PREFETCH": str(prefetch),
        }

    def _fill(self, reminders: int, people: int) -> None:
        with self.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE person")
            cursor.execute("TRUNCATE reminder")
            cursor.execute(
                "INSERT INTO person (id, name, email) SELECT seq, CONCAT('Person ', seq), "
                f"CONCAT('person', seq, '@people.example') FROM seq_1_to_{people}"
            )
            cursor.execute(
                "INSERT INTO reminder (person_id, title, status, fire_at) SELECT 1 + seq MOD %s, "
                "CONCAT('Water the plants in room ', seq), 'pending', UTC_TIMESTAMP(6) "
                f"FROM seq_1_to_{reminders}",
                (people,),
            )
            cursor.execute("ANALYZE TABLE person, reminder")
            cursor.fetchall()

    def _sent(self) -> int:
        with self.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM reminder WHERE status = 'sent'")
            row = cursor.fetchone()
        assert row is not None
        return int(row[0])

    def measure(self, *, reminders: int, people: int, concurrency: int, prefetch: int = 4) -> Rate:
        """From the scan's start in an idle worker until the sink has every message. Raises BenchError."""
        self._fill(reminders, people)
        self.redis.flushall()
        self.sink.reset()
        with self._worker(concurrency, prefetch):
            questions = self.mariadb.status("Questions")
            begin = subprocess.run(
                [str(PYTHON), "celery_reminders.py"],
                cwd=PEERS,
                env=self._environment(prefetch),
                stdout=subprocess.PIPE,
                timeout=60,
                check=True,
            )
            began = json.loads(begin.stdout)["began"]
            wait_until(lambda: self.sink.count() >= reminders, LONGEST_SECONDS, "Celery's messages", every=0.2)
            questions = self.mariadb.status("Questions") - questions
            wait_until(lambda: self._sent() == reminders, 10, "Celery's rows")
        return Rate(reminders, self.sink.messages()[-1].wall - began, statements=questions)

    @contextlib.contextmanager
    def _worker(self, concurrency: int, prefetch: int) -> Iterator[None]:
        command = [str(PYTHON), "-m", "celery", "-A", "celery_reminders", "worker", "--loglevel", "WARNING"]
        options = [
            "--concurrency",
            str(concurrency),
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
        log_path = self.mariadb.folder / "celery.log"
        with peer_worker([*command, *options], environment=self._environment(prefetch), log_path=log_path) as process:
            time.sleep(4)  # it has started, forked and is waiting for tasks
            if process.poll() is not None:
                raise BenchError(f"Celery's worker ended at its start:\n{log_path.read_text()[-2000:]}")
            yield
