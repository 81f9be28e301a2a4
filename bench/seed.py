"""Fills the service's own tables by bulk SQL: people, tasks with an assignee, reminders far ahead."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.surroundings import DATABASE, Surroundings

KEPT = "alembic_version"
FAR_AHEAD = "2190-01-01"
"""When seeded reminders fire until `make_due` says otherwise."""

# A UUIDv7's form with the row's number in it: ids ascend, as those that the service makes.
_ID = "UNHEX(CONCAT(LPAD(HEX(1700000000000 + {n}), 12, '0'), '70008000', LPAD(HEX({n}), 12, '0')))"


def identifier(number: str) -> str:
    """The SQL for the id of the row with this number (an SQL expression)."""
    return _ID.format(n=number)


def clear(on: Surroundings) -> None:
    """Empty every table."""
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        cursor.execute("SHOW TABLES")
        for (table,) in cursor.fetchall():
            if table != KEPT:
                cursor.execute(f"TRUNCATE `{table}`")


def add_people_and_tasks(on: Surroundings, *, people: int, tasks: int) -> None:
    """Active people with verified addresses, and open tasks that go round them as makers and assignees."""
    person, own = identifier("1 + seq MOD %(people)s"), identifier("seq")
    numbers = {"people": people, "fire_at": FAR_AHEAD}
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO user (id, email, name, role, status, email_verified_at, bio, timezone, locale, "
            f"created_at, updated_at) SELECT {own}, CONCAT('person', seq, '@people.example'), "
            "CONCAT('Person ', seq), 'user', 'active', UTC_TIMESTAMP(6), '', 'Europe/Berlin', 'en', "
            f"UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM seq_1_to_{people}"
        )
        cursor.execute(
            "INSERT INTO task (id, creator_id, title, description, status, priority, due_at, all_day, "
            f"timezone, created_at, updated_at, version) SELECT {own}, {person}, "
            "CONCAT('Water the plants in room ', seq), '', 'todo', 2, %(fire_at)s, 0, 'Europe/Berlin', "
            f"UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 1 FROM seq_1_to_{tasks}",
            numbers,
        )
        cursor.execute(
            "INSERT INTO task_assignee (task_id, user_id, assigned_at) "
            f"SELECT {own}, {person}, UTC_TIMESTAMP(6) FROM seq_1_to_{tasks}",
            numbers,
        )


def seed(on: Surroundings, *, reminders: int, people: int) -> None:
    """Empty all, then a task and a reminder for its assignee, so many times."""
    clear(on)
    add_people_and_tasks(on, people=people, tasks=reminders)
    person, own = identifier("1 + seq MOD %(people)s"), identifier("seq")
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO reminder (id, task_id, user_id, audience, fire_at, state, seq, created_at) "
            f"SELECT {own}, {own}, {person}, 'assignees', %(fire_at)s, 'pending', 0, UTC_TIMESTAMP(6) "
            f"FROM seq_1_to_{reminders}",
            {"people": people, "fire_at": FAR_AHEAD},
        )
        cursor.execute("ANALYZE TABLE user, task, task_assignee, reminder")
        cursor.fetchall()


def make_due(on: Surroundings, at: float, *, first: int = 1, last: int | None = None) -> None:
    """Let reminders `first` to `last` (all by default) fire at an instant, in seconds since 1970."""
    fire_at = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    where = f"WHERE id BETWEEN {identifier(str(first))} AND {identifier(str(last))}" if last else ""
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute(f"UPDATE reminder SET fire_at = %s {where}", (fire_at,))


def states(on: Surroundings) -> dict[str, int]:
    """How many reminders are in each state, but for those that are far ahead."""
    with on.mariadb.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT state, count(*) FROM reminder WHERE fire_at < %s GROUP BY state", (FAR_AHEAD,))
        return dict(cursor.fetchall())
