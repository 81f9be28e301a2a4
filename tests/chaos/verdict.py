"""What must be true when all is over, and the numbers that it cost."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Row, select

from bench.sink_protocol import Arrival
from models import Delivery, Email, Reminder, Run, RunAttempt, Task, Worker
from models.run import UNFINISHED, RunState
from scheduler.runs.jobs import JobName
from tests.chaos.findings import Verdict
from tests.chaos.load import PREFIX, Kind
from tests.chaos.plan import Plan
from tests.chaos.records import client_faults, judge_records, lines_of
from tests.chaos.stage import Stage

_UNFINISHED = frozenset(state.value for state in UNFINISHED)
_SUCCEEDED, _CANCELLED, _SKIPPED = (state.value for state in (RunState.SUCCEEDED, RunState.CANCELLED, RunState.SKIPPED))
_MAY_END: dict[str, frozenset[str]] = {
    Kind.CANCELLED: frozenset({_SUCCEEDED, _CANCELLED}),
    Kind.MINUTELY: frozenset({_SUCCEEDED, _SKIPPED}),
}
"""The final states of each kind; of all others only `succeeded`."""


def unsettled(engine: Engine, stage: Stage) -> Counter[str]:
    """What is not at its end yet, by table and state, and the dead workers that are still on record; empty once
    everything is."""
    living = {str(worker.process.pid) for worker in stage.slots if worker.is_alive}
    with engine.connect() as connection:
        left: Counter[str] = Counter()
        for table, final in (
            (Run, None),
            (Reminder, {"sent", "skipped", "failed"}),
            (Email, {"sent", "dead"}),
        ):
            for state in connection.execute(select(table.__table__.c.state)).scalars():
                if (state in _UNFINISHED) if final is None else (state not in final):
                    left[f"{table.__tablename__} {state}"] += 1
        # host:process:number; an isolated child has its parent's process.
        names = connection.execute(select(Worker.name)).scalars()
        left["worker dead"] = sum(name.split(":")[1] not in living for name in names)
    return +left


def judge(engine: Engine, stage: Stage, arrivals: Sequence[Arrival], answered: Counter[str]) -> Verdict:
    """Look at everything."""
    verdict, plan, folder = Verdict(), stage.plan, stage.folder
    with engine.connect() as connection:
        runs = connection.execute(select(Run.__table__)).all()
        attempts = connection.execute(select(RunAttempt.__table__)).all()
        chaos_tasks = select(Task.id, Task.title).where(Task.title.startswith(f"{PREFIX}-"))
        tasks = connection.execute(chaos_tasks).all()
        reminders = connection.execute(select(Reminder.id, Reminder.state)).all()
        deliveries = connection.execute(select(Delivery.__table__)).all()
        emails = connection.execute(select(Email.message_id, Email.state, Email.id)).all()
        workers = connection.execute(select(Worker.name)).scalars().all()
    asked = [run for run in runs if run.job == JobName.RUN_SCHEDULE.value]
    creating = [run for run in asked if _title(run) is not None]
    # A connection that never answers keeps a sender from writing down what it has sent, as a database that is away.
    explained_at = stage.repeats_explained_at + [
        each["at"] for each in client_faults(stage.journal) if "no answer" in each["fault"]
    ]
    _judge_ends(verdict, plan, runs, creating, folder)
    _judge_effects(verdict, creating, tasks)
    _judge_requests(verdict, [run for run in asked if _title(run) is None], answered)
    _judge_attempts(verdict, asked, attempts)
    _judge_queues(verdict, creating)
    _judge_emails(verdict, plan, reminders, deliveries, emails, arrivals, explained_at)
    judge_records(verdict, runs, stage)
    verdict.hold("workers that ended and are not forgotten", workers)
    return verdict


def _judge_ends(
    verdict: Verdict, plan: Plan, runs: Sequence[Row[Any]], creating: Sequence[Row[Any]], folder: Path
) -> None:
    """Every accepted run ended, and as it should."""
    verdict.hold(
        "runs that never ended", (f"{run.id} {run.job} {run.state}" for run in runs if run.state in _UNFINISHED)
    )
    wrong = [run for run in creating if run.state not in _MAY_END.get(_kind(run), {_SUCCEEDED})]
    verdict.hold(
        "runs that ended otherwise than they should",
        (f"{run.id} {_title(run)} {run.state} after {run.attempt}: {_error(run)}" for run in wrong),
    )
    present = {_title(run) for run in creating} | {run.idempotency_key for run in runs}
    accepted = [each for line in lines_of(folder / "accepted.log") for each in json.loads(line)]
    verdict.hold("accepted and not there", (each for each in accepted if each not in present))
    of_kinds = [run for run in creating if _kind(run) in (Kind.PLAIN, Kind.KEYED)]
    if len(of_kinds) < plan.jobs:
        verdict.violations.append(
            f"only {len(of_kinds)} jobs were asked for, of {plan.jobs}: the round shows too little"
        )
    waits = [(run.finished_at - run.queued_at).total_seconds() for run in creating if _is_timed(run)]
    verdict.count("jobs with an effect in the database", "accepted", len(creating))
    for kind, count in Counter(map(_kind, creating)).items():
        verdict.count("jobs with an effect in the database", f"  of these {kind}", count)
    for state, count in Counter(run.state for run in creating).items():
        verdict.count("jobs with an effect in the database", state, count)
    verdict.numbers["jobs with an effect in the database"] |= _quantiles("seconds from queued to end", waits)
    for state, count in Counter(f"{run.job} {run.state}" for run in runs if run not in creating).items():
        verdict.count("other runs", state, count)


def _judge_effects(verdict: Verdict, creating: Sequence[Row[Any]], tasks: Sequence[Row[Any]]) -> None:
    """Each run that succeeded made the one task that it names in its result, and nobody made another."""
    titles = {task.id.hex: task.title for task in tasks}
    named = Counter(
        str(run.result["task_id"]).replace("-", "") for run in creating if run.state == _SUCCEEDED and run.result
    )
    verdict.hold(
        "runs that succeeded without their effect",
        (
            f"{run.id} {_title(run)}"
            for run in creating
            if run.state == _SUCCEEDED
            and (not run.result or titles.get(str(run.result["task_id"]).replace("-", "")) != _title(run))
        ),
    )
    verdict.hold("effects of no run that succeeded", (f"{titles[each]}" for each in titles if each not in named))
    verdict.hold("effects that several runs claim", (titles.get(each) for each, count in named.items() if count > 1))
    asked_once = Counter(_title(run) for run in creating if _kind(run) != Kind.MINUTELY)
    verdict.hold("asked for once and there twice", (each for each, count in asked_once.items() if count > 1))
    wanted = Counter(_title(run) for run in creating if run.state == _SUCCEEDED)
    made = Counter(task.title for task in tasks)
    verdict.hold("effects missing", (wanted - made).elements())
    verdict.hold("effects made twice", (made - wanted).elements())
    verdict.count("jobs with an effect in the database", "effects", len(tasks))


def _judge_requests(verdict: Verdict, runs: Sequence[Row[Any]], answered: Counter[str]) -> None:
    """HTTP requests are sent at least once: whatever succeeded has been answered."""
    final = {_SUCCEEDED, RunState.FAILED.value}
    verdict.hold(
        "requests that ended otherwise than they should", (f"{r.id} {r.state}" for r in runs if r.state not in final)
    )
    verdict.hold(
        "requests that succeeded and never came",
        (run.id for run in runs if run.state == _SUCCEEDED and not answered[str(run.id)]),
    )
    verdict.count("HTTP requests", "runs", len(runs))
    for state, count in Counter(run.state for run in runs).items():
        verdict.count("HTTP requests", state, count)
    verdict.count("HTTP requests", "answered more than once", sum(count > 1 for count in answered.values()))


def _judge_attempts(verdict: Verdict, runs: Sequence[Row[Any]], attempts: Sequence[Row[Any]]) -> None:
    """A run's attempts but the last are on record, each once, and there are not more than it may have."""
    numbers = defaultdict(list)
    for each in attempts:
        numbers[each.run_id].append(each.number)
    begun = [run for run in runs if run.state not in (_CANCELLED, _SKIPPED)]
    verdict.hold(
        "attempts that do not add up",
        (
            f"{run.id}: {sorted(numbers[run.id])} before the last of {run.attempt}"
            for run in begun
            if sorted(numbers[run.id]) != list(range(1, run.attempt))
        ),
    )
    verdict.hold("more attempts than allowed", (run.id for run in begun if not 1 <= run.attempt <= run.max_attempts))
    for attempt, count in sorted(Counter(run.attempt for run in begun).items()):
        verdict.count("attempts", f"runs that took {attempt}", count)
    for what, count in Counter(f"{each.state}: {(each.error or {}).get('type')}" for each in attempts).items():
        verdict.count("attempts", f"  ended as {what}", count)


def _judge_queues(verdict: Verdict, creating: Sequence[Row[Any]]) -> None:
    """Runs of a schedule with `overlap: queue` never run at the same time, and run in the order of their times."""
    queues: dict[Any, list[Row[Any]]] = defaultdict(list)
    for run in creating:
        if _kind(run) == Kind.QUEUED:
            queues[run.schedule_id].append(run)
    overlaps = []
    for runs in queues.values():
        runs.sort(key=lambda run: run.scheduled_for)
        overlaps += [
            f"{second.id} began at {second.started_at}, {first.id} ended at {first.finished_at}"
            for first, second in pairwise(runs)
            if first.finished_at is not None and second.started_at is not None and second.started_at < first.finished_at
        ]
    verdict.hold("runs of a queueing schedule at the same time", overlaps)


def _judge_emails(
    verdict: Verdict,
    plan: Plan,
    reminders: Sequence[Row[Any]],
    deliveries: Sequence[Row[Any]],
    emails: Sequence[Row[Any]],
    arrivals: Sequence[Arrival],
    explained_at: Sequence[float],
) -> None:
    """Every reminder went out as one e-mail; what came twice came under the same Message-ID."""
    came = Counter(arrival.message_id for arrival in arrivals)
    known = {email.message_id for email in emails}
    verdict.hold(
        "reminders that were not sent", (f"{each.id} {each.state}" for each in reminders if each.state != "sent")
    )
    verdict.hold(
        "deliveries that were not sent", (f"{each.id} {each.state}" for each in deliveries if each.state != "sent")
    )
    verdict.hold("e-mails that never came", (each.message_id for each in emails if not came[each.message_id]))
    verdict.hold("e-mails that are not on record as sent", (each.message_id for each in emails if each.state != "sent"))
    verdict.hold("messages that nobody wrote", (each for each in came if each not in known))
    if not len(reminders) == len(deliveries) == len(emails) == plan.emails:
        verdict.violations.append(
            f"{len(reminders)} reminders, {len(deliveries)} deliveries, {len(emails)} e-mails; of each {plan.emails}"
        )
    verdict.count("e-mails", "reminders", len(reminders))
    verdict.count("e-mails", "arrived at the mail server", len(came))
    verdict.count("e-mails", "arrived again, under the same Message-ID", came.total() - len(came))
    came_at: dict[str, list[float]] = defaultdict(list)
    for arrival in arrivals:
        came_at[arrival.message_id].append(arrival.wall)
    due_at = {delivery.email_id: delivery.fire_at.timestamp() for delivery in deliveries}
    late = [came_at[each.message_id][0] - due_at[each.id] for each in emails if each.message_id in came_at]
    verdict.numbers["e-mails"] |= _quantiles("seconds from due to arrival", late)
    verdict.hold(
        "e-mails that came twice though nothing was killed between the two",
        (
            f"{message_id} {second - first:.3f} s after"
            for message_id, times in came_at.items()
            for first, second in pairwise(times)
            if not any(first <= at <= second for at in explained_at)
        ),
    )


def _quantiles(of: str, seconds: Sequence[float]) -> dict[str, str]:
    """Median, 99th percentile and the longest, as numbers to print."""
    ordered = sorted(seconds) or [0.0]
    parts = (("median", 0.5), ("99 %", 0.99), ("longest", 1.0))
    return {f"{of}, {name}": f"{ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.1f}" for name, part in parts}


def _title(run: Row[Any]) -> str | None:
    action = (run.arguments or {}).get("action", {})
    found = action.get("task", {}).get("title")
    return None if found is None else str(found)


def _kind(run: Row[Any]) -> str:
    return str(_title(run)).split("-")[1]


def _error(run: Row[Any]) -> str:
    error = run.error or {}
    return f"{error.get('type')} {error.get('message')}"[:200]


def _is_timed(run: Row[Any]) -> bool:
    # Firings that wait for each other wait for no fault of the engine's.
    return run.state == _SUCCEEDED and _kind(run) != Kind.QUEUED
