"""What is kept of a round, beside its logs, for whoever looks into what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, Engine, select, text

from bench.sink_protocol import Arrival
from models import Delivery, Email, Reminder, Run, RunAttempt, Worker

_OF_SERVER = (
    "SELECT * FROM information_schema.INNODB_TRX",
    "SELECT ID, HOST, DB, COMMAND, TIME, STATE, LEFT(INFO, 300) FROM information_schema.PROCESSLIST",
    "SHOW ENGINE INNODB STATUS",
)


def keep(engine: Engine, arrivals: Sequence[Arrival], folder: Path) -> None:
    """Write the rows to `<table>.rows`, one a line; the bytes of messages are left out. Likewise what was sent."""
    lines = [f"{arrival.wall:.3f}\t{arrival.message_id}" for arrival in arrivals]
    (folder / "arrivals.rows").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with engine.connect() as connection:
        for model in (Run, RunAttempt, Reminder, Delivery, Email, Worker):
            columns = [column for column in model.__table__.columns if column.key != "message"]
            rows = connection.execute(select(*columns)).all()
            lines = ["\t".join(column.key for column in columns), *("\t".join(map(str, row)) for row in rows)]
            (folder / f"{model.__tablename__}.rows").write_text("\n".join(lines) + "\n", encoding="utf-8")


def keep_server(engine: Engine, path: Path) -> None:
    """Write what MariaDB has under way: transactions, connections, locks."""
    if engine.dialect.name != "mysql":
        return
    with engine.connect() as connection:
        parts = [_answer(connection, query) for query in _OF_SERVER]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _answer(connection: Connection, query: str) -> str:
    result = connection.execute(text(query))
    return "\n".join([query, "\t".join(result.keys()), *("\t".join(map(str, row)) for row in result)])
