"""Faults at the database client: what a network, a server or a time-out can do to a statement or to a commit.

The product knows nothing of this: `install` puts a connection class of ours in the place of the product's, before the
product connects. The worst of them is the write that lands while the caller sees a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from pymysql.constants import COMMAND
from pymysql.err import OperationalError

import scheduler.mysql
from scheduler.mysql import FastConnection

LOST, TIMED_OUT, LOCK_WAIT, DEADLOCK = 2013, 1969, 1205, 1213
SLOW_S = (0.1, 2.0)
_ENDLESS_S = 3600.0


class Fault(StrEnum):
    """What can go wrong; the names are the journal's and the report's."""

    TIMED_OUT = "statement: timed out"
    LOCK_WAIT = "statement: lock wait"
    DEADLOCK = "statement: deadlock"
    CUT_BEFORE = "statement: cut before it was sent"
    CUT_AFTER = "statement: cut after it was sent"
    SLOW = "statement: slow"
    SWALLOWED = "statement: no answer, ever"
    COMMIT_LANDED = "commit: landed, seen as failed"
    COMMIT_CUT = "commit: cut while on its way"
    COMMIT_UNSENT = "commit: cut before it was sent"
    COMMIT_SLOW = "commit: slow"
    COMMIT_SWALLOWED = "commit: landed, no answer, ever"


_STATEMENT: Mapping[Fault, float] = {
    Fault.TIMED_OUT: 20,
    Fault.LOCK_WAIT: 10,
    Fault.DEADLOCK: 10,
    Fault.CUT_BEFORE: 20,
    Fault.CUT_AFTER: 20,
    Fault.SLOW: 19,
    Fault.SWALLOWED: 1,
}
_COMMIT: Mapping[Fault, float] = {
    Fault.COMMIT_LANDED: 40,
    Fault.COMMIT_CUT: 20,
    Fault.COMMIT_UNSENT: 24,
    Fault.COMMIT_SLOW: 14,
    Fault.COMMIT_SWALLOWED: 2,
}


class ClientFaults:
    """Draws what goes wrong next, and keeps a journal of it on disk, which outlives whoever is killed."""

    def __init__(self, *, seed: str, journal: Path, rate: float) -> None:
        """`rate`: of statements, the part that goes wrong; of commits it is eight times that. The file `journal`
        with the suffix `.over` ends it all."""
        self._random = random.Random(seed)
        self._rate = rate
        self._over = over_file(journal)
        self._is_over = False
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def of_statement(self) -> Fault | None:
        """What happens to the next statement."""
        return self._draw(_STATEMENT, self._rate)

    def of_commit(self) -> Fault | None:
        """What happens to the next commit."""
        return self._draw(_COMMIT, 8 * self._rate)

    def slowness(self) -> float:
        """Seconds."""
        return self._random.uniform(*SLOW_S)

    def _draw(self, weights: Mapping[Fault, float], rate: float) -> Fault | None:
        if self._is_over or self._random.random() >= rate:
            return None
        self._is_over = self._over.exists()
        if self._is_over:
            return None
        fault = self._random.choices(list(weights), list(weights.values()))[0]
        line = json.dumps({"fault": fault.value, "pid": os.getpid(), "at": time.time()})
        os.write(self._journal, line.encode() + b"\n")
        return fault


class FaultyConnection(FastConnection):
    """The product's connection, to which these faults happen."""

    faults: ClassVar[ClientFaults]

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Send a statement and read its answer, or not."""
        match self.faults.of_statement():
            case Fault.TIMED_OUT:
                raise OperationalError(
                    TIMED_OUT, "Query execution was interrupted (max_statement_time exceeded) [chaos]"
                )
            case Fault.LOCK_WAIT:
                raise OperationalError(LOCK_WAIT, "Lock wait timeout exceeded; try restarting transaction [chaos]")
            case Fault.DEADLOCK:
                raise OperationalError(DEADLOCK, "Deadlock found when trying to get lock; try restarting [chaos]")
            case Fault.CUT_BEFORE:
                raise self._cut()
            case Fault.CUT_AFTER:
                statement = sql.encode(self.encoding, "surrogateescape") if isinstance(sql, str) else sql
                await self._execute_command(COMMAND.COM_QUERY, statement)
                raise self._cut()
            case Fault.SLOW:
                await asyncio.sleep(self.faults.slowness())
            case Fault.SWALLOWED:
                await self._never()
        return await super().query(sql, unbuffered)

    async def commit(self) -> None:
        """Commit, or seem not to."""
        match self.faults.of_commit():
            case Fault.COMMIT_LANDED:
                await super().commit()
                raise self._cut()
            case Fault.COMMIT_CUT:
                await self._execute_command(COMMAND.COM_QUERY, "COMMIT")
                raise self._cut()
            case Fault.COMMIT_UNSENT:
                raise self._cut()
            case Fault.COMMIT_SLOW:
                await asyncio.sleep(self.faults.slowness())
            case Fault.COMMIT_SWALLOWED:
                await super().commit()
                await self._never()
        await super().commit()

    def _cut(self) -> OperationalError:
        self.close()
        return OperationalError(LOST, "Lost connection to MySQL server during query [chaos]")

    async def _never(self) -> None:
        """Wait for what does not come, until the caller has had enough; as in the driver, that ends the connection."""
        try:
            await asyncio.sleep(_ENDLESS_S)
        except asyncio.CancelledError:
            self._close_on_cancel()
            raise


def install(faults: ClientFaults) -> None:
    """From now on these happen to every connection to MariaDB that this process opens."""
    FaultyConnection.faults = faults
    scheduler.mysql.FastConnection = FaultyConnection  # type: ignore[misc]


def install_from_environment(role: str = "") -> None:
    """As the round says it to its processes; nothing happens to a process to which it says nothing.

    `role` tells apart those that inherit one environment.
    """
    if journal := os.environ.get("CHAOS_JOURNAL"):
        seed, rate = os.environ["CHAOS_SEED"] + role, float(os.environ["CHAOS_CLIENT_FAULT_RATE"])
        install(ClientFaults(seed=seed, journal=Path(journal), rate=rate))


def environment(*, seed: str, journal: Path, rate: float) -> dict[str, str]:
    """What to say to a process that `install_from_environment` shall hear."""
    return {"CHAOS_JOURNAL": str(journal), "CHAOS_SEED": seed, "CHAOS_CLIENT_FAULT_RATE": str(rate)}


def over_file(journal: Path) -> Path:
    """The file that ends all faults once it is there."""
    return journal.with_suffix(".over")
