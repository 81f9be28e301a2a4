"""How late reminders are in an idle service: from the fire time to the message at the SMTP server."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from bench.measure import quantile, wait_until
from bench.seed import make_due, seed
from bench.service import workers
from bench.surroundings import Surroundings


@dataclass(frozen=True)
class Lateness:
    """Seconds, over all reminders of all rounds."""

    reminders: int
    rounds: int
    p50: float
    p99: float
    longest: float


def measure(on: Surroundings, *, together: int, people: int, rounds: int, fractions: bool) -> Lateness:
    """`together` reminders for one instant, `rounds` times, one worker process.

    `fractions`: the instant lies anywhere in its second instead of at its beginning, which is the harder
    case for a service that looks once a second. Raises BenchError when messages don't come.
    """
    seed(on, reminders=together * rounds, people=people)
    on.redis.flushall()
    found: list[float] = []
    with workers(on, 1):
        for number in range(rounds):
            on.sink.reset()
            at = int(time.time()) + 3 + (random.random() if fractions else 0.0)
            make_due(on, at, first=1 + number * together, last=(number + 1) * together)
            wait_until(lambda: on.sink.count() >= together, 30, f"{together} reminders", every=0.1)
            found += [message.wall - at for message in on.sink.messages()]
            time.sleep(0.5)
    return Lateness(together, rounds, quantile(found, 0.5), quantile(found, 0.99), max(found))
