"""Whether the claim of what is due stays flat as the table grows: 10,000 due of 100,000 or 5,000,000 rows."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from bench.measure import BenchError
from bench.seed import add_people_and_tasks, clear, identifier
from bench.surroundings import DATABASE, Surroundings
from scheduler.clock import now
from scheduler.database import Database
from scheduler.reminders.claim import claim_due

CHUNK = 250_000
DUE = 10_000
PEOPLE = 500
REMINDERS_A_TASK = 50


def fill(on: Surroundings, *, rows: int, present: int = 0, at_last: int) -> None:
    """Grow the table from `present` rows to `rows`: of five, four were sent and one fires after today.

    `at_last`: how many there will ever be, so that the tasks are there from the start.
    """
    if not present:
        clear(on)
        add_people_and_tasks(on, people=PEOPLE, tasks=1 + at_last // REMINDERS_A_TASK)
    task, person = identifier(f"1 + seq DIV {REMINDERS_A_TASK}"), identifier(f"1 + seq MOD {PEOPLE}")
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0, UNIQUE_CHECKS = 0")
        for start in range(present + 1, rows + 1, CHUNK):
            end = min(start + CHUNK - 1, rows)
            cursor.execute(
                "INSERT INTO reminder "
                "(id, task_id, user_id, audience, fire_at, state, sent_at, seq, created_at) "
                f"SELECT {identifier('seq')}, {task}, {person}, "
                "'assignees', IF(seq MOD 5, '2020-01-01', '2030-01-01') + INTERVAL seq * 12 SECOND, "
                "IF(seq MOD 5, 'sent', 'pending'), IF(seq MOD 5, UTC_TIMESTAMP(6), NULL), 1, "
                f"UTC_TIMESTAMP(6) FROM seq_{start}_to_{end}"
            )
        cursor.execute("ANALYZE TABLE reminder")
        cursor.fetchall()


def _make_due(on: Surroundings) -> None:
    """Undo the claims of before; then DUE of the rows that lie ahead become due."""
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE reminder SET state = 'pending', owner = NULL, lease_until = NULL WHERE state = 'claimed'"
        )
        cursor.execute("SELECT count(*) FROM reminder WHERE state = 'pending' AND fire_at <= UTC_TIMESTAMP(6)")
        row = cursor.fetchone()
        assert row is not None
        if missing := DUE - int(row[0]):
            cursor.execute(
                "UPDATE reminder SET fire_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND "
                "WHERE state = 'pending' AND fire_at > UTC_TIMESTAMP(6) ORDER BY fire_at LIMIT %s",
                (missing,),
            )


async def _claim_all(url: str) -> float:
    """Seconds until everything due is claimed, in batches, each a transaction of its own."""
    database = Database(url)
    claimed = 0
    try:
        async with database.read():  # the connection is made before the clock runs
            pass
        began = time.monotonic()
        while True:
            async with database.write() as session:
                taken = len(await claim_due(session, claim=uuid4(), now=now()))
            claimed += taken
            if not taken:
                break
        seconds = time.monotonic() - began
    finally:
        await database.dispose()
    if claimed != DUE:
        raise BenchError(f"{claimed} reminders were claimed of {DUE} due")
    return seconds


def measure(on: Surroundings, *, rounds: int) -> list[float]:
    """Seconds for the claim of DUE reminders, a value a round, after one round that doesn't count."""
    found = []
    for _ in range(rounds + 1):
        _make_due(on)
        found.append(asyncio.run(_claim_all(on.database_url)))
    return found[1:]
