"""The job `erase_accounts` in a whole worker: asked for by a deletion, done within seconds."""

from __future__ import annotations

import pytest

from models import LogRecord, Run, User
from scheduler.accounts.administration import delete_user
from scheduler.accounts.client import Client
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.settings import Settings
from tests.factories import add_people, add_rows
from tests.jobs.conftest import working
from tests.services.engine import until
from tests.services.stored import count, one, rows

pytestmark = pytest.mark.heavy(on="mariadb")


async def test_a_deletion_has_the_traces_removed_within_seconds(settings: Settings, database: Database) -> None:
    people = await add_people(database)
    record = {"id": new_id(), "at": now(), "level": "info", "event": "x", "logger": "x", "data": {"ip": "::1"}}
    await add_rows(database, LogRecord, [record | {"user_id": people.bob.user_id}])
    async with database.write() as session:
        await delete_user(
            session, actor=people.eve, user_id=people.bob.user_id, client=Client("::1", "browser"), now=now()
        )
    async with working(settings):

        async def is_done() -> bool:
            return bool(await rows(database, Run, Run.job == "erase_accounts", Run.state == "succeeded"))

        await until(is_done, seconds=15, what="the run")
    assert await count(database, LogRecord, LogRecord.id == record["id"]) == 0
    run = await one(database, Run, Run.job == "erase_accounts", Run.state == "succeeded")
    assert (run.result["log_records"], run.result["erased"], run.result["left"]) == (1, 0, 0)
    # One more look follows, once nothing can come any longer.
    assert (await one(database, User, User.id == people.bob.user_id)).deletion_requested_at is not None
