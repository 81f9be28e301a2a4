"""An export from asking for it to the file, by a whole worker."""

from __future__ import annotations

import zipfile
from io import BytesIO
from uuid import UUID

import orjson
import pytest
from sqlalchemy import update

from models import AccountExport, Task
from scheduler.accounts.client import Client
from scheduler.accounts.export import ask_for_export, find_export
from scheduler.clock import now
from scheduler.database import Database
from scheduler.settings import Settings
from scheduler.storage import Storage
from tests.factories import add_people, add_rows, task_row
from tests.jobs.conftest import ask, working
from tests.s3_server import S3Server
from tests.services.engine import run_row, until

CLIENT = Client(ip="192.0.2.7", user_agent="a browser")


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_a_worker_makes_it_and_takes_it_away(
    settings: Settings, database: Database, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "bucket":
        server: S3Server = request.getfixturevalue("s3_server")
        settings = settings.model_copy(update={"storage_url": server.url})
    people = await add_people(database)
    await add_rows(database, Task, [task_row(people.alice.user_id, title=f"Task {number}") for number in range(3)])
    async with working(settings):
        async with database.write() as session:
            run_id = await ask_for_export(session, actor=people.alice, client=CLIENT, now=now())

        await until_done(database, run_id)
    async with database.read() as session:
        found = await find_export(session, actor=people.alice, now=now())
    assert found is not None and found.storage_key is not None
    storage = Storage(settings.storage_url, settings.data_dir)
    archive = zipfile.ZipFile(BytesIO(await storage.get(found.storage_key)))
    assert {row["title"] for row in orjson.loads(archive.read("tasks.json"))} == {"Task 0", "Task 1", "Task 2"}
    row = await run_row(database, run_id)
    assert row.owner_id == people.alice.user_id and row.progress_done > 0 and row.result["size"] > 0

    async with database.write() as session:
        await session.execute(update(AccountExport).values(expires_at=now()))
    async with working(settings):
        cleaning = await ask(database, "cleanup")
        await until_done(database, cleaning)
    assert (await run_row(database, cleaning)).result["exports"] == 1
    with pytest.raises(FileNotFoundError):
        await storage.size(found.storage_key)
    storage.close()


async def until_done(database: Database, run_id: UUID) -> None:
    async def is_done() -> bool:
        return bool((await run_row(database, run_id)).state == "succeeded")

    await until(is_done, seconds=15, what="a run's end")
