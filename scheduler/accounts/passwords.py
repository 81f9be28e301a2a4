"""Passwords: what we take, and how they are stored (argon2id, off the event loop, a bounded number at
once)."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

Result = TypeVar("Result")

SHORTEST, LONGEST = 10, 128
"""In code points after NFKC (the contract's section 3)."""

MOST_THREADS = 4
"""Each fills 19 MiB again and again; more of them wait for the memory, and for each other."""
WAITING = 2
"""Who have their turn beside those whose password is hashed, so that the threads are never without work."""
NICER_BY = 10
"""Than the process: a tenth of the weight (sched(7))."""

# OWASP, Password Storage Cheat Sheet: argon2id with 19 MiB, 2 iterations, 1 degree of parallelism.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)


def normalise(password: str) -> str:
    """NFKC, so that one password typed on two keyboards is one password (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def objection(password: str, *, email: str) -> str | None:
    """Why this password is not taken, in words for the person, or None when it is."""
    plain = normalise(password)
    if not SHORTEST <= len(plain) <= LONGEST:
        return f"must have {SHORTEST} to {LONGEST} characters"
    folded = plain.casefold()
    if folded == email.casefold():
        return "must not be your e-mail address"
    if folded in _common():
        return "is one of the most common passwords; choose another"
    return None


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    """The 20,000 most common passwords, by Royce Williams, as Django ships them (BSD licence)."""
    packed = (files("scheduler.accounts") / "common_passwords.txt.gz").read_bytes()
    return frozenset(line.strip().casefold() for line in gzip.decompress(packed).decode().splitlines())


class Passwords:
    """Hashes and checks in threads of its own: a hash costs 20 ms or more of one core, and must not stop the
    loop."""

    def __init__(self, *, threads: int | None = None) -> None:
        """Without a number of threads: one for each core but one, and no more than `MOST_THREADS`."""
        threads = threads or min(MOST_THREADS, max(1, _cores() - 1))
        self.turns = asyncio.Semaphore(threads + WAITING)
        """For whoever serves: to be had before the first look at the database. A crowd that signs in at once would else
        take all connections, one after another, only to wait for a hash then."""
        self._threads = ThreadPoolExecutor(
            max_workers=threads,
            thread_name_prefix="argon2",
            initializer=_give_way_to_others,
        )
        # Checked when there is no account, so that the answer takes as long as for one.
        self._nobody = _HASHER.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The argon2id string to store."""
        return await self._run(_HASHER.hash, normalise(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one behind `stored`; as slow for None (no account, no password) as for
        any other."""
        right = await self._run(_verify, stored or self._nobody, normalise(password))
        return right and bool(stored)

    def needs_rehash(self, stored: str) -> bool:
        """Whether `stored` was made with other parameters than today's."""
        return _HASHER.check_needs_rehash(stored)

    def close(self) -> None:
        """End the threads; what they do is finished first."""
        self._threads.shutdown()

    async def _run(self, function: Callable[..., Result], *arguments: str) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _give_way_to_others() -> None:
    """Hashes run when nothing else of this machine wants the core: the loop must not wait for its turn behind them, as
    everybody's requests would wait with it. On Linux a thread has a niceness of its own; elsewhere nothing changes."""
    if sys.platform == "linux":
        own = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + NICER_BY))
            os.sched_setscheduler(own, os.SCHED_BATCH, os.sched_param(0))


def _verify(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False
