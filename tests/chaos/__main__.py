"""Rounds of chaos, one after the other, each with servers of its own. Exits with 1 when anything was violated."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.schema import upgrade
from tests.chaos.findings import Verdict
from tests.chaos.plan import CLIENT_FAULT_RATE, EMAILS, JOBS, Plan
from tests.chaos.round import play
from tests.conftest import Stack
from tests.servers import MariaDBServer, RedisServer, ServerError

DATABASE = "punctual_chaos"


def main() -> int:
    """Play the rounds; returns the exit status."""
    options = _options()
    seeds = list(range(options.seed, options.seed + options.seeds))
    failed: list[int] = []
    for seed in seeds:
        plan = Plan(
            seed=seed,
            seconds=options.seconds,
            jobs=options.jobs,
            emails=options.emails,
            workers=options.workers,
            client_fault_rate=options.client_fault_rate,
        )
        folder = Path(tempfile.mkdtemp(prefix=f"punctual-chaos-{seed}-"))
        _say(f"\nseed {seed}: {plan.jobs} jobs, {plan.emails} e-mails, {plan.workers} workers, {plan.seconds:g} s")
        began = time.monotonic()
        try:
            with _stack(options.stack, folder) as stack:
                verdict = asyncio.run(play(plan, stack, folder))
        except ServerError as error:
            _say(f"no round: {error}")
            return 2
        except TimeoutError:
            verdict = Verdict([f"the round did not end within its time ({time.monotonic() - began:.0f} s)"])
        _print(verdict)
        if verdict.violations:
            failed.append(seed)
            _say(f"VIOLATED with seed {seed}; everything that was logged is kept in {folder}")
        else:
            _say(f"seed {seed}: nothing lost, nothing done twice")
            if not options.keep:
                shutil.rmtree(folder, ignore_errors=True)
    if len(seeds) > 1:
        _say(f"\n{len(seeds)} rounds, {len(failed)} with violations{f': seeds {failed}' if failed else ''}")
    return 1 if failed else 0


@contextmanager
def _stack(name: str, folder: Path) -> Iterator[Stack]:
    """Servers of the round's own, and a migrated database. Raises ServerError."""
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    with RedisServer() as redis:
        if name == "sqlite":
            url = f"sqlite+aiosqlite:///{data_dir / 'punctual.sqlite3'}"
            upgrade(url)
            yield Stack(name, url, redis.url, data_dir, redis, None)
            return
        # 1: what is acknowledged outlives a SIGKILL of the server, as on a server in production.
        with MariaDBServer(flush_log_at_trx_commit=1) as server:
            server.create_database(DATABASE)
            url = server.url(DATABASE, "mysql+aiomysql")
            upgrade(url)
            yield Stack(name, url, redis.url, data_dir, redis, server)


def _print(verdict: Verdict) -> None:
    for group, numbers in verdict.numbers.items():
        _say(f"  {group}")
        for name, number in numbers.items():
            _say(f"    {name.partition(chr(10))[0][:64]:64}{number!s:>10}")
    for violation in verdict.violations:
        _say(f"  VIOLATION  {violation}")


def _say(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what is done to whom follows from it")
    parser.add_argument("--seeds", type=int, default=1, help="so many rounds, from --seed on")
    parser.add_argument("--seconds", type=float, default=60.0, help="of chaos, in each round")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--emails", type=int, default=EMAILS)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--stack", choices=("mariadb", "sqlite"), default="mariadb")
    parser.add_argument(
        "--client-fault-rate",
        type=float,
        default=CLIENT_FAULT_RATE,
        help="part of the statements at the database client that goes wrong",
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs of rounds without violations too")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        _say("stopped; every process has ended")
        sys.exit(130)
