"""Measures Punctual against its promises and its peers.

    python -m bench [--only throughput,lateness,scan,runs,history,sign_in] [--rounds 3] [--reminders 20000]
                    [--people 500] [--runs 20000] [--history-rows 10000000] [--tries 200]

Starts what it needs (MariaDB with a sync at each commit, Redis, an SMTP sink) and ends it again. Prints
tables and writes them as JSON to bench/results/. Nothing else should run meanwhile; only ratios carry over
to other machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench import competitors, history, lateness, noop_peers, runs, scan, service, sign_in, sink_load
from bench.measure import BenchError, Rate, median, quantile
from bench.sink import ROOT
from bench.surroundings import Surroundings, surroundings

PARTS = ("throughput", "lateness", "scan", "runs", "history", "sign_in")
SMALL, LARGE = 100_000, 5_000_000
SHORT_HISTORY, LONG_HISTORY, EXPIRED = 10_000, 10_000_000, 100_000
HISTORY_ROUNDS = 40
"""Each question takes some milliseconds."""
SIGN_INS_AT_ONCE = 50
SINGLE_ROUNDS = 10
SINGLE_RUNS = 200
CONCURRENCY = 1000
"""Of our worker, where it is compared with arq's `max_jobs` of 1000."""
OURS, SEND_MESSAGE, CELERY = "Punctual, 1 worker", "aiosmtplib send_message, 8 connections", "Celery"


def say(text: str = "") -> None:
    """To a person, at once."""
    print(text, flush=True)


def throughput(on: Surroundings, options: argparse.Namespace) -> dict[str, Any]:
    """Reminders a second: ours, the plain loops, Celery; a round of each in turn, then medians."""
    competitors.make_environment()
    celery = competitors.CeleryPeer(on.mariadb, on.redis, on.sink)
    size = {"reminders": options.reminders, "people": options.people}
    loop_size = {"messages": options.reminders, "people": options.people}
    contenders: dict[str, Callable[[], Rate]] = {
        OURS: lambda: service.throughput(on, processes=1, **size),
        "Punctual, 2 workers": lambda: service.throughput(on, processes=2, **size),
        SEND_MESSAGE: lambda: competitors.plain_loop(on.sink, "send_message", **loop_size),
        "aiosmtplib sendmail, ready bytes": lambda: competitors.plain_loop(on.sink, "sendmail", **loop_size),
        CELERY: lambda: celery.measure(concurrency=options.celery_concurrency, **size),
    }
    found: dict[str, list[Rate]] = {name: [] for name in contenders}
    for number in range(options.rounds):
        for name, measure in contenders.items():
            rate = measure()
            found[name].append(rate)
            say(f"  round {number + 1}: {name}: {rate.per_second:,.0f}/s")
    rates = {name: median([rate.per_second for rate in all_of]) for name, all_of in found.items()}
    say(f"\n{options.reminders:,} reminders of {options.people} people, medians of {options.rounds} rounds")
    say(f"  {'':40}{'/s':>9}{'to send_message':>18}{'to Celery':>12}{'statements each':>18}")
    statements: dict[str, float | None] = {}
    for name, rate_of in rates.items():
        each = [rate.statements_each for rate in found[name] if rate.statements_each is not None]
        statements[name] = median(each) if each else None
        shown = f"{median(each):.3f}" if each else ""
        to_loop, to_celery = rate_of / rates[SEND_MESSAGE], rate_of / rates[CELERY]
        say(f"  {name:40}{rate_of:>9,.0f}{to_loop:>18.2f}{to_celery:>12.2f}{shown:>18}")
    sink_rate = sink_load.measure(100_000)["per_second"]
    say(f"  (the sink alone: {sink_rate:,.0f}/s; Celery: prefork, concurrency {options.celery_concurrency})")
    say("  wanted: 2 x send_message and 6 x Celery with one worker, statements each below 0.1")
    return {
        "rates": rates,
        "statements_each": statements,
        "sink": sink_rate,
        "rounds": {name: [asdict(rate) for rate in all_of] for name, all_of in found.items()},
    }


def lateness_part(on: Surroundings, options: argparse.Namespace) -> dict[str, Any]:
    """How late: 1,000 reminders for one second, and single ones anywhere in a second."""
    rows = [
        lateness.measure(on, together=1000, people=options.people, rounds=options.rounds, fractions=False),
        lateness.measure(on, together=1, people=1, rounds=SINGLE_ROUNDS, fractions=True),
    ]
    say("\nlateness in an idle service with one worker, seconds (fire time -> message at the SMTP server)")
    say(f"  {'reminders at once':>20}{'rounds':>9}{'p50':>9}{'p99':>9}{'longest':>9}")
    for row in rows:
        say(f"  {row.reminders:>20,}{row.rounds:>9}{row.p50:>9.3f}{row.p99:>9.3f}{row.longest:>9.3f}")
    say("  wanted: p99 below 2 s for 1,000; below 1.2 s for one")
    return {"rows": [asdict(row) for row in rows]}


def scan_part(on: Surroundings, options: argparse.Namespace) -> dict[str, Any]:
    """The claim of 10,000 due at two sizes of the table."""
    found: dict[int, list[float]] = {}
    present = 0
    for rows in (options.scan_small, options.scan_large):
        began = time.monotonic()
        scan.fill(on, rows=rows, present=present, at_last=options.scan_large)
        say(f"  filled to {rows:,} rows in {time.monotonic() - began:.0f} s")
        present = rows
        found[rows] = scan.measure(on, rounds=max(5, options.rounds))
    small, large = (median(seconds) for seconds in found.values())
    say(f"\nclaim of {scan.DUE:,} due reminders in batches, medians of {max(5, options.rounds)} rounds")
    for rows, seconds in found.items():
        say(f"  at {rows:>10,} rows: {median(seconds):.3f} s ({scan.DUE / median(seconds):,.0f}/s)")
    say(f"  ratio {large / small:.2f} (wanted: at most 1.3)")
    return {"seconds": found, "ratio": large / small}


def runs_part(on: Surroundings, options: argparse.Namespace) -> dict[str, Any]:
    """Runs that do nothing, a second: ours, then each peer, in turn; and how soon a single one starts."""
    competitors.make_environment()
    ours = {f"Punctual, concurrency {CONCURRENCY}": CONCURRENCY, "Punctual, default concurrency": None}
    found: dict[str, list[Rate]] = {name: [] for name in [*ours, *(peer.name for peer in noop_peers.NOOP_PEERS)]}
    with_records: dict[str, list[float]] = {name: [] for name in ours}

    def note(name: str, rate: Rate, more: str = "") -> None:
        found[name].append(rate)
        say(f"  round {len(found[name])}: {name}: {rate.per_second:,.0f}/s{more}")

    for _ in range(options.rounds):
        for name, concurrency in ours.items():
            measured = runs.throughput(on, runs=options.runs, concurrency=concurrency)
            with_records[name].append(options.runs / measured.with_records)
            note(name, measured.rate, f" ({with_records[name][-1]:,.0f}/s until every record is stored)")
        for peer in noop_peers.NOOP_PEERS:
            note(peer.name, noop_peers.measure(peer, on.redis, on.mariadb.folder))
    rates = {name: median([rate.per_second for rate in all_of]) for name, all_of in found.items()}
    tuned, default = rates[noop_peers.ARQ_TUNED.name], rates[noop_peers.ARQ_DEFAULT.name]
    say(f"\nruns that do nothing, one worker, medians of {options.rounds} rounds ({options.runs:,} of ours)")
    say(f"  {'':40}{'/s':>9}{'to tuned arq':>15}{'to default arq':>17}{'statements each':>18}")
    statements: dict[str, float] = {}
    for name, rate_of in rates.items():
        each = [rate.statements_each for rate in found[name] if rate.statements_each is not None]
        if each:
            statements[name] = median(each)
        shown = f"{statements[name]:.3f}" if each else ""
        say(f"  {name:40}{rate_of:>9,.0f}{rate_of / tuned:>15.2f}{rate_of / default:>17.1f}{shown:>18}")
    say("  ours: first row written -> all rows final, on disk, with history; theirs: work alone, Redis in memory")
    say("  wanted: 1 x tuned arq, 8 x default arq")
    single = runs.latency(on, runs=SINGLE_RUNS)
    say(f"\nfrom asking for a run to its start, {single.runs} single runs in an idle service, milliseconds")
    say(f"  p50 {single.p50 * 1000:.1f}, p99 {single.p99 * 1000:.1f}, longest {single.longest * 1000:.1f}")
    say("  wanted: p50 below 50, p99 below 250")
    return {
        "rates": rates,
        "statements_each": statements,
        "with_records": {name: median(each) for name, each in with_records.items()},
        "latency": asdict(single),
        "rounds": {name: [asdict(rate) for rate in all_of] for name, all_of in found.items()},
    }


def history_part(on: Surroundings, options: argparse.Namespace) -> dict[str, Any]:
    """Lists, filters and claims in a short and in a long history of runs; then the cleanup of what has expired."""
    histories: list[history.History] = []
    for rows in (options.history_small, options.history_rows):
        began = time.monotonic()
        histories.append(history.fill(on, f"punctual_history_{len(histories)}", rows=rows))
        say(f"  filled with {rows:,} runs in {time.monotonic() - began:.0f} s")
    found = history.measure(histories, rounds=HISTORY_ROUNDS)
    ratios = {name: long / short for name, (short, long) in found.items()}
    say(f"\nmilliseconds in a history of so many runs, medians of {HISTORY_ROUNDS} rounds")
    say(f"  {'':45}{options.history_small:>14,}{options.history_rows:>14,}{'ratio':>9}")
    for name, (short, long) in found.items():
        say(f"  {name:45}{short * 1000:>14.2f}{long * 1000:>14.2f}{ratios[name]:>9.2f}")
    say(f"  the largest ratio: {max(ratios.values()):.2f} (wanted: at most 1.5)")
    history.add_expired(histories[-1], rows=options.history_expired)
    cleaned = history.clean(histories[-1])
    say(f"\ncleanup of {cleaned.runs:,} expired runs and as many log records; {options.history_rows:,} runs stay")
    say(f"  {cleaned.per_second:,.0f}/s of each (wanted: more than 1,000)")
    say(f"  while a writer inserted {cleaned.written_per_second:,.0f}/s of each")
    times = {"a batch held its locks": cleaned.locks, "an insert of the writer took": cleaned.inserts}
    for name, seconds in times.items():
        p50, p99 = (quantile(seconds, share) * 1000 for share in (0.5, 0.99))
        say(f"  {name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {max(seconds) * 1000:.0f} ms")
    return {"seconds": found, "ratios": ratios, "cleanup": asdict(cleaned)}


def sign_in_part(on: Surroundings, options: argparse.Namespace) -> dict[str, Any]:
    """Sign-ins a second and what others notice of them; what it costs to know who asks; what the time tells."""
    addresses = sign_in.add_accounts(on, options.tries)
    with sign_in.web_process(on) as base:
        load = asyncio.run(
            sign_in.meanwhile(
                base, addresses, at_once=SIGN_INS_AT_ONCE, rounds=options.rounds, seconds=options.sign_in_seconds
            )
        )
        cost = asyncio.run(sign_in.authentication_cost(on, base, addresses[0], times=1000))
        told = {
            path: asyncio.run(
                sign_in.enumeration(base, addresses, path=path, with_password=with_password, status=status)
            )
            for path, with_password, status in (
                ("/auth/login", True, 401),
                ("/auth/forgot-password", False, 202),
            )
        }
    ratio = sign_in.p99(load.busy) / sign_in.p99(load.idle)
    say(f"\nsign-ins, {SIGN_INS_AT_ONCE} at once: {load.alone_per_second:.0f}/s with one web process")
    say(f"ordinary requests of one person, in {options.rounds} rounds of each in turn, milliseconds")
    say(f"  {'':34}{'requests':>9}{'p50':>9}{'p99':>9}")
    for name, took in (("nobody signs in", load.idle), (f"{SIGN_INS_AT_ONCE} sign in at once", load.busy)):
        say(f"  {name:34}{len(took):>9,}{quantile(took, 0.5) * 1000:>9.1f}{sign_in.p99(took):>9.1f}")
    say(f"  meanwhile {median(load.sign_ins_per_second):.0f} sign-ins/s")
    say(f"  ratio of the p99s {ratio:.2f} (wanted: below 3)")
    say("\nto know who is asking, microseconds, medians of 1,000")
    say(f"  a signature {cost.signature:.0f}, remembered {cost.signature_remembered:.1f}")
    say(f"  the trip to Redis, which counts the request too, {cost.trip_to_redis:.0f}")
    say(f"  all of it: remembered {cost.remembered:.0f}, with a read of the tables {cost.read:.0f}")
    say(f"\nwhat the time of an answer tells of who has an account, {options.tries} tries each, milliseconds")
    say(f"  {'':34}{'known':>9}{'unknown':>9}{'differ':>9}{'by chance':>11}")
    for path, found in told.items():
        known, unknown = median(found.known) * 1000, median(found.unknown) * 1000
        say(f"  {path:34}{known:>9.2f}{unknown:>9.2f}{found.difference * 1000:>9.2f}{found.chance:>11.2f}")
    say("  wanted: no difference that chance would not make once in a hundred times or more often")
    return {
        "alone_per_second": load.alone_per_second,
        "p99_idle_ms": sign_in.p99(load.idle),
        "p99_busy_ms": sign_in.p99(load.busy),
        "ratio": ratio,
        "sign_ins_per_second": load.sign_ins_per_second,
        "authentication_us": asdict(cost),
        "enumeration": {path: {**asdict(found), "difference": found.difference} for path, found in told.items()},
    }


def main() -> int:
    """The command line. Exit status 1 if something that was measured did not do its work."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated: " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reminders", type=int, default=20_000)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--celery-concurrency", type=int, default=2)
    parser.add_argument("--scan-small", type=int, default=SMALL, help="rows")
    parser.add_argument("--scan-large", type=int, default=LARGE, help="rows")
    parser.add_argument("--history-small", type=int, default=SHORT_HISTORY, help="runs")
    parser.add_argument("--history-rows", type=int, default=LONG_HISTORY, help="runs")
    parser.add_argument("--history-expired", type=int, default=EXPIRED, help="runs, and as many log records")
    parser.add_argument("--tries", type=int, default=200, help="of each kind, at guessing who has an account")
    parser.add_argument("--sign-in-seconds", type=float, default=5.0, help="of a round")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: not one of {', '.join(PARTS)}")
    parts = {
        "throughput": throughput,
        "lateness": lateness_part,
        "scan": scan_part,
        "runs": runs_part,
        "history": history_part,
        "sign_in": sign_in_part,
    }
    results: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "options": vars(options),
    }
    status = 0
    for name in wanted:
        say(f"== {name}")
        try:
            with surroundings() as on:  # fresh servers: no part inherits another's buffers
                results[name] = parts[name](on, options)
        except Exception as error:  # what the other parts found is still worth having
            if not isinstance(error, BenchError):
                traceback.print_exc()
            say(f"FAILED: {name}: {error}")
            results[name] = {"error": str(error)}
            status = 1
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{results['at'].replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    say(f"\nwritten: {path.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
