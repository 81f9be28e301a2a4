"""What the processes of a round wrote: their log lines, and the journal of the database client's faults."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from models.run import RunState
from scheduler.logs import FINAL_EVENTS
from scheduler.runs.jobs import JobName
from tests.chaos.findings import Verdict
from tests.chaos.stage import Stage

OWED_S = 15.0
"""Between a commit and its record may lie a database that is away: whoever dies within that time may owe the record."""
_BY_ITS_WORKER = (RunState.SUCCEEDED.value, RunState.FAILED.value)
"""Ends that a run's own worker writes, again and again until it knows. Who cancels or buries a run, and a tick that
ends its own, tries a few times only: where the answer to that commit was lost, nobody tells of it."""


@dataclass
class _Lines:
    """What matters of all log lines."""

    ends: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The last records, by run."""
    log_of: dict[str, str] = field(default_factory=dict)
    """The log in which a worker says that it starts, by the worker's name."""
    trouble: Counter[str] = field(default_factory=Counter)
    died: list[str] = field(default_factory=list)


def judge_records(verdict: Verdict, runs: Sequence[Row[Any]], stage: Stage) -> None:
    """Each run ends in one record; only whoever dies between the commit and the record may owe it."""
    lines = _read(stage.folder)
    states = {str(run.id): run.state for run in runs}
    verdict.hold("parts of workers that died", lines.died)
    verdict.hold("runs with two last records", (f"{run} {said}" for run, said in lines.ends.items() if len(said) > 1))
    lies = {run: said[0] for run, said in lines.ends.items() if said[0] != f"run.{states.get(run)}"}
    verdict.hold("last records that say something else than the run", (f"{r} {lies[r]}, {states.get(r)}" for r in lies))
    ended_at = {worker.log_path.stem: worker.signalled_at for worker in stage.all_workers}
    missing = [run for run in runs if str(run.id) not in lines.ends]
    verdict.hold(
        "runs without their last record, though nobody died",
        (f"{run.id} {run.state} by {run.worker}" for run in missing if not _may_be_owed(run, lines.log_of, ended_at)),
    )
    verdict.count("records", "last records of runs", len(lines.ends))
    verdict.count("records", "runs without one, as somebody died just then", len(missing))
    for what, count in lines.trouble.most_common(12):
        verdict.count("records of errors", what, count)


def _may_be_owed(run: Row[Any], log_of: Mapping[str, str], ended_at: Mapping[str, float | None]) -> bool:
    if run.job != JobName.RUN_SCHEDULE.value or run.state not in _BY_ITS_WORKER:
        return True
    died_at = ended_at.get(log_of.get(run.worker, ""))
    return died_at is not None and -1 <= died_at - run.finished_at.timestamp() <= OWED_S


def _read(folder: Path) -> _Lines:
    found = _Lines()
    for path in sorted([*folder.glob("worker-*.log"), folder / "producer.log"]):
        for line in lines_of(path):
            if not line.startswith("{"):
                found.trouble[f"not JSON: {line[:80]}"] += 1
                continue
            record = json.loads(line)
            if record["event"] in FINAL_EVENTS:
                found.ends[record["run_id"]].append(record["event"])
            elif record["event"] == "worker.started":
                found.log_of[record["worker"]] = path.stem
            elif record["event"] == "worker.part_died":
                found.died.append(line[:500])
            elif record["level"] in ("error", "critical"):
                found.trouble[f"{record['logger']}: {record['event']}"] += 1
    return found


def client_faults(journal: Path) -> list[dict[str, Any]]:
    """What was done at the database client: `fault`, `pid`, `at`."""
    return [json.loads(line) for line in lines_of(journal)]


def lines_of(path: Path) -> list[str]:
    """The lines of a file; none where there is no file."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
