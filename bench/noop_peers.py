"""How many jobs that do nothing arq, SAQ and Celery get through in a second: programs in bench/peers.

All are measured in one way, which is kind to them: the queue is filled before the worker starts, Redis keeps nothing
on disk, what the worker does at its start and with the first tenth of the jobs does not count, and the jobs are
counted by stamps in a file (bench/peers/stamps.py) that cost them next to nothing.
"""

from __future__ import annotations

import array
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.competitors import LONGEST_SECONDS, PEERS, PYTHON, peer_worker
from bench.measure import BenchError, Rate, wait_until
from tests.servers import RedisServer

WARM_UP = 10
"""One in so many jobs comes before the clock starts."""


@dataclass(frozen=True)
class NoopPeer:
    """How one peer is filled (the number of jobs follows) and run, and how many jobs its measurement takes.

    A slower peer gets fewer, so that each round takes seconds.
    """

    name: str
    fill: tuple[str, ...]
    work: tuple[str, ...]
    jobs: int
    prefetch: int = 0


def _arq(name: str, jobs: int, *options: str) -> NoopPeer:
    # In the service's own environment: the arq that carries our runs.
    program = (sys.executable, "arq_noop.py")
    return NoopPeer(name, (*program, "fill"), (*program, "work", *options), jobs)


def _saq(name: str, jobs: int, *options: str) -> NoopPeer:
    program = (str(PYTHON), "saq_noop.py")
    return NoopPeer(name, (*program, "fill"), (*program, "work", *options), jobs)


def _celery(name: str, jobs: int, *options: str, prefetch: int) -> NoopPeer:
    work = (str(PYTHON), "-m", "celery", "-A", "celery_noop", "worker", "--loglevel", "WARNING")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return NoopPeer(name, (str(PYTHON), "celery_noop.py"), (*work, *quiet, *options), jobs, prefetch)


ARQ_DEFAULT = _arq("arq, defaults", 2_000)
ARQ_TUNED = _arq("arq, max_jobs 1000, poll_delay 0.01", 20_000, "--max-jobs", "1000", "--poll-delay", "0.01")
SAQ = _saq("SAQ, concurrency 20", 10_000, "--concurrency", "20")
CELERY_TWO = _celery("Celery, 2 processes", 6_000, "--concurrency", "2", prefetch=4)
CELERY_BEST = _celery("Celery, 4 processes, prefetch 16", 6_000, "--concurrency", "4", prefetch=16)
NOOP_PEERS = (ARQ_DEFAULT, ARQ_TUNED, SAQ, CELERY_TWO, CELERY_BEST)
"""Of SAQ and Celery the settings that did best here, of several tried."""


def measure(peer: NoopPeer, redis: RedisServer, folder: Path) -> Rate:
    """Fill the queue, start the peer's worker, and read its stamps. Raises BenchError."""
    stamps = folder / "stamps"
    shutil.rmtree(stamps, ignore_errors=True)
    stamps.mkdir()
    redis.flushall()
    environment = {
        **os.environ,
        "PEER_REDIS": redis.url,
        "PEER_STAMPS": str(stamps),
        "PEER_PREFETCH": str(peer.prefetch),
    }
    subprocess.run([*peer.fill, str(peer.jobs)], cwd=PEERS, env=environment, timeout=LONGEST_SECONDS, check=True)
    log_path = folder / "peer.log"
    with peer_worker(list(peer.work), environment=environment, log_path=log_path) as process:
        ended: Callable[[], bool] = lambda: process.poll() is not None  # noqa: E731
        wait_until(lambda: ended() or _count(stamps) >= peer.jobs, LONGEST_SECONDS, peer.name, every=0.2)
        if ended():
            raise BenchError(f"{peer.name}: its worker ended by itself:\n{log_path.read_text()[-2000:]}")
    # SAQ runs a job twice now and then (its first sweep takes one that has just begun for stuck).
    times = sorted(_read(stamps))[: peer.jobs]
    first = peer.jobs // WARM_UP
    return Rate(peer.jobs - first, times[-1] - times[first - 1])


def _read(stamps: Path) -> list[float]:
    times: list[float] = []
    for path in stamps.iterdir():
        written = array.array("d", path.read_bytes())
        times += written[: _written(written)]
    return times


def _count(stamps: Path) -> int:
    return len(_read(stamps))


def _written(times: array.array[float]) -> int:
    """How many stamps there are before the zeros that fill the file."""
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if times[middle] else (low, middle)
    return low
