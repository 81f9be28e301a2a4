"""A person's export: all that is stored about them and nothing about others, made once, kept for a day."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import BigInteger, Boolean, Integer, SmallInteger, String, Table, Text, insert, select, update

from models import AccountExport, Activity, Base, Email, Run, Task, TaskAssignee, TaskShare, User
from models.run import RunState
from models.types import Digest, Id, Instant, Json
from models.user import AccountStatus
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.export import KEPT, ask_for_export, find_export, make_export
from scheduler.accounts.export_archive import ROWS_AT_ONCE, write_archive
from scheduler.accounts.export_contents import SECTIONS, Person
from scheduler.accounts.login_lock import address_digest
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.running import JobFailed, RunningJob, RunTaken
from scheduler.settings import Settings
from scheduler.storage import Storage, StorageAway
from tests.factories import NOW, People, add_rows, email_row, task_row
from tests.services.engine import begin, run_row
from tests.services.stored import count, one, set_

CLIENT = Client(ip="192.0.2.7", user_agent="a browser")
JOB = "export_account"


@pytest.fixture
def storage(settings: Settings) -> Iterator[Storage]:
    storage = Storage(settings.storage_url, settings.data_dir)
    yield storage
    storage.close()


async def ask(database: Database, actor: Actor, *, now: datetime = NOW, lost: str | None = None) -> UUID:
    return await database.retry_write(
        lambda session: ask_for_export(session, actor=actor, lost=lost, client=CLIENT, now=now)
    )


async def find(database: Database, actor: Actor, *, now: datetime = NOW) -> Any:
    async with database.read() as session:
        return await find_export(session, actor=actor, now=now)


async def take_up(database: Database, run_id: UUID) -> RunningJob:
    """Begin a run that was asked for."""
    await set_(database, Run, run_id, state="running", worker="w", seq=1, attempt=1, started_at=NOW)
    row = await run_row(database, run_id)
    return RunningJob(
        id=row.id, job=JOB, trigger=row.trigger, attempt=1, started_at=NOW, worker="w", owner_id=row.owner_id
    )


async def make(
    database: Database, storage: Storage, actor: Actor, *, now: datetime = NOW, lost: str | None = None
) -> zipfile.ZipFile:
    run = await take_up(database, await ask(database, actor, now=now, lost=lost))
    await make_export(database, storage=storage, run=run, clock=lambda: now)
    return await opened(database, storage, actor, now=now)


async def opened(database: Database, storage: Storage, actor: Actor, *, now: datetime = NOW) -> zipfile.ZipFile:
    found = await find(database, actor, now=now)
    archive = zipfile.ZipFile(BytesIO(await storage.get(found.storage_key)))
    assert archive.testzip() is None
    return archive


def rows_in(archive: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(archive.read(f"{name}.json"))
    return found


# -- what is in it -------------------------------------------------------------------------------------------


class Filler:
    """Fills every column of every table with values that are found again wherever they turn up."""

    def __init__(self, mark: str, user_id: UUID, email: str) -> None:
        self.mark, self.user_id, self.email = mark, user_id, email
        self.values: dict[str, str] = {}
        """The text that was put into which column, as `table.column`."""
        self.ids: dict[str, Any] = {}

    def text(self, table: str, column: str) -> str:
        text = f"{self.mark}{len(self.values):05d}"
        self.values[f"{table}.{column}"] = text
        return text

    def row(self, table: Table, **given: Any) -> dict[str, Any]:
        row = {}
        for column in table.columns:
            kind: Any = column.type
            if column.key in given:
                row[column.key] = given[column.key]
            elif column.key in ("user_id", "owner_id", "creator_id", "actor_id") and isinstance(kind, Id):
                row[column.key] = self.user_id
            elif isinstance(kind, Id):
                row[column.key] = new_id()
            elif isinstance(kind, Digest):
                row[column.key] = os.urandom(32)
            elif isinstance(kind, Instant):
                row[column.key] = NOW
            elif isinstance(kind, Json):
                row[column.key] = {"value": self.text(table.name, column.key)}
            elif isinstance(kind, Boolean):
                row[column.key] = True
            elif isinstance(kind, BigInteger | SmallInteger | Integer):
                row[column.key] = 1
            elif isinstance(kind, String | Text):
                row[column.key] = self.text(table.name, column.key)
            else:
                row[column.key] = self.text(table.name, column.key).encode()
        self.ids[table.name] = row.get("id")
        return row


async def fill(database: Database, mark: str, actor: Actor, other: Actor) -> Filler:
    """A row about `actor` in every table; of tasks, also one that `other` gave them."""
    user = await one(database, User, User.id == actor.user_id)
    filler = Filler(mark, actor.user_id, user.email)
    kept = {"id": user.id, "status": "active", "role": "user", "email": user.email}
    changed = filler.row(User.__table__, **kept)
    changed["avatar_key"] = None
    await set_(database, User, actor.user_id, **changed)
    skipped = {"user", "metric", "worker"}
    given: dict[str, dict[str, Any]] = {
        "login_failure": {"address_digest": address_digest(user.email)},
        "email": {"template": "security"},
        "reminder": {"snoozed_from": None},
        "schedule": {"system_job": None},
        "run": {"state": "succeeded"},
        "activity": {"target_type": "task"},
    }
    for table in Base.metadata.sorted_tables:
        if table.name in skipped or table.name in ("task_assignee", "task_share"):
            continue
        links = {
            column.key: filler.ids[next(iter(column.foreign_keys)).column.table.name]
            for column in table.columns
            if column.foreign_keys and next(iter(column.foreign_keys)).column.table.name != "user"
        }
        row = filler.row(table, **links, **given.get(table.name, {}))
        async with database.write() as session:
            await session.execute(insert(table), [row])
    theirs = task_row(other.user_id, title=filler.text("assigned", "title"))
    shared = task_row(other.user_id, title=filler.text("shared", "title"))
    binned = task_row(other.user_id, title=f"in {mark}'s sight no more", deleted_at=NOW)
    for row in (theirs, shared, binned):
        row.setdefault("deleted_at", None)
    await add_rows(database, Task, [theirs, shared, binned])
    await add_rows(
        database,
        TaskAssignee,
        [
            {"task_id": task_id, "user_id": person, "assigned_at": NOW}
            for task_id, person in (
                (theirs["id"], actor.user_id),
                (binned["id"], actor.user_id),
                (filler.ids["task"], other.user_id),
            )
        ],
    )
    await add_rows(
        database,
        TaskShare,
        [
            {"task_id": shared["id"], "user_id": actor.user_id, "permission": "view", "shared_at": NOW},
            {"task_id": filler.ids["task"], "user_id": other.user_id, "permission": "edit", "shared_at": NOW},
        ],
    )
    return filler


async def test_all_about_me_and_nothing_about_others(database: Database, storage: Storage, people: People) -> None:
    mine = await fill(database, "a", people.alice, people.carol)
    others = await fill(database, "b", people.bob, people.carol)
    archive = await make(database, storage, people.alice)
    whole = b"\n".join(archive.read(name) for name in archive.namelist()).decode()

    withheld = {
        f"{section.source.name}.{name}"
        for section in SECTIONS
        if isinstance(section.source, Table)
        for name in section.withheld
    }
    # Of e-mails the file, of errors what is no traceback.
    elsewhere = {"email.message", "run.error", "run_attempt.error"}
    for name, text in mine.values.items():
        if name in elsewhere:
            continue
        assert (text in whole) == (name not in withheld or name == "activity.ip" or name == "activity.user_agent"), name
    assert not [name for name, text in others.values.items() if text in whole]
    assert "sight no more" not in whole

    assert set(archive.namelist()) == {
        "README.txt",
        f"emails/{mine.ids['email']}.eml",
        *(f"{section.name}.json" for section in SECTIONS),
    }
    assert archive.read(f"emails/{mine.ids['email']}.eml").decode() == mine.values["email.message"]
    for section in SECTIONS:
        # What nobody else did to the account.
        assert len(rows_in(archive, section.name)) == (0 if section.name == "done_to_your_account" else 1) or (
            section.name in ("runs", "activity")  # the export's own
        ), section.name
    [account] = rows_in(archive, "account")
    assert account["id"] == str(people.alice.user_id) and account["created_at"] == "2026-03-02T12:00:00Z"
    assert rows_in(archive, "assigned_by_you")[0]["name"] == "Carol"
    assert mine.email in archive.read("README.txt").decode()
    assert all(name in archive.read("README.txt").decode() for name in archive.namelist() if name.endswith(".json"))


async def test_somebody_about_whom_there_is_next_to_nothing(
    database: Database, storage: Storage, people: People
) -> None:
    archive = await make(database, storage, people.carol)
    assert {section.name for section in SECTIONS if rows_in(archive, section.name)} == {
        "account",
        "activity",
        "runs",
        "exports",
    }


async def test_many_rows_are_read_in_pages(database: Database, storage: Storage, people: People) -> None:
    tasks = [task_row(people.alice.user_id, title=f"Task {number}") for number in range(2 * ROWS_AT_ONCE + 1)]
    await add_rows(database, Task, tasks)
    at = [NOW + timedelta(minutes=number // 100) for number in range(ROWS_AT_ONCE)]  # many at one instant
    emails = [email_row(moment, user_id=people.alice.user_id, template="security") for moment in at[:45]]
    await add_rows(database, Email, emails)
    records = [
        {
            "id": new_id(),
            "at": moment,
            "actor_id": people.alice.user_id,
            "action": "x",
            "target_type": "task",
            "target_id": new_id(),
            "changes": {},
        }
        for moment in at
    ]
    await add_rows(database, Activity, records)
    archive = await make(database, storage, people.alice)
    assert {row["id"] for row in rows_in(archive, "tasks")} == {str(task["id"]) for task in tasks}
    assert len(rows_in(archive, "activity")) == len(records) + 1
    assert len([name for name in archive.namelist() if name.startswith("emails/")]) == 45


async def test_a_link_that_signs_in_does_not_stand_in_it(database: Database, storage: Storage, people: People) -> None:
    link = b"https://example.com/act/reset?token=abc"
    rows = [email_row(user_id=people.alice.user_id, template="reset_password", message=link)]
    await add_rows(database, Email, rows)
    archive = await make(database, storage, people.alice)
    assert [row["template"] for row in rows_in(archive, "emails")] == ["reset_password"]
    assert not any(link in archive.read(name) or b"act/reset" in archive.read(name) for name in archive.namelist())


async def test_nobody_learns_from_it_whose_an_address_is(database: Database, storage: Storage, people: People) -> None:
    """A link to a new address goes out only where that address is nobody's."""
    await add_rows(database, Email, [email_row(user_id=people.alice.user_id, template="change_email")])
    assert rows_in(await make(database, storage, people.alice), "emails") == []


async def test_the_picture_is_in_it_unless_it_is_lost(database: Database, storage: Storage, people: People) -> None:
    key = f"avatars/{people.alice.user_id.hex}/1"
    await set_(database, User, people.alice.user_id, avatar_key=key)
    assert "avatar.webp" not in (await make(database, storage, people.alice)).namelist()
    await storage.put(key, b"RIFF")
    lost = (await find(database, people.alice)).storage_key
    assert (await make(database, storage, people.alice, lost=lost)).read("avatar.webp") == b"RIFF"


@pytest.mark.heavy(on="mariadb")
async def test_memory_does_not_grow_with_what_there_is(
    database: Database, storage: Storage, people: People, tmp_path: Path
) -> None:
    rows = [task_row(people.alice.user_id, description="x" * 15_000 + str(number)) for number in range(1500)]
    for start in range(0, len(rows), 250):
        await add_rows(database, Task, rows[start : start + 250])
    del rows
    person = Person(people.alice.user_id, "alice@example.com")
    with storage.spooled() as file:
        tracemalloc.start()
        try:
            await write_archive(file, database=database, storage=storage, person=person, avatar=None, now=NOW)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(rows_in(zipfile.ZipFile(file), "tasks")) == 1500
    # Of 22 MB of tasks, 7 are a page; as rows and as JSON.
    assert peak < 24_000_000


# -- how it is made ------------------------------------------------------------------------------------------


async def test_asked_for_twice_it_is_made_once(database: Database, storage: Storage, people: People) -> None:
    assert await find(database, people.alice) is None
    run_ids = await asyncio.gather(*(ask(database, people.alice) for _ in range(8)))
    assert len(set(run_ids)) == 1
    assert await count(database, Run) == await count(database, Activity) == 1
    assert (await find(database, people.alice))[:2] == (run_ids[0], None)
    assert await find(database, people.bob) is None

    run = await take_up(database, run_ids[0])
    result = await make_export(database, storage=storage, run=run, clock=lambda: NOW)
    row = await run_row(database, run.id)
    assert (row.state, row.result) == (RunState.SUCCEEDED, result) and run.is_settled
    found = await find(database, people.alice)
    assert await storage.size(found.storage_key) == result["size"]
    assert (await run_row(database, run.id)).progress_total == 0 or run.progress_done > 0
    assert await ask(database, people.alice) == run.id
    assert await count(database, Run) == 1


async def test_it_is_kept_for_a_day(database: Database, storage: Storage, people: People) -> None:
    await make(database, storage, people.alice)
    almost, past = NOW + KEPT - timedelta(seconds=1), NOW + KEPT
    first = (await find(database, people.alice, now=almost)).storage_key
    assert await find(database, people.alice, now=past) is None
    again = await ask(database, people.alice, now=past)
    assert (await find(database, people.alice, now=past)).storage_key is None
    assert await count(database, AccountExport) == 1
    run = await take_up(database, again)
    await make_export(database, storage=storage, run=run, clock=lambda: past)
    assert (await find(database, people.alice, now=past)).storage_key != first


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELLED, RunState.LOST])
async def test_one_that_was_not_made_is_made_anew(database: Database, people: People, state: RunState) -> None:
    first = await ask(database, people.alice)
    await set_(database, Run, first, state=state.value, finished_at=NOW)
    assert await find(database, people.alice) is None
    assert await ask(database, people.alice) != first


async def test_a_second_run_replaces_the_file_of_the_first(
    database: Database, storage: Storage, people: People
) -> None:
    """An administrator retries a run, say: each is about its owner, and one file is left."""
    await make(database, storage, people.alice)
    first = (await find(database, people.alice)).storage_key
    [run] = await begin(database, job=JOB, owner_id=people.alice.user_id)
    await make_export(database, storage=storage, run=run, clock=lambda: NOW)
    found = await find(database, people.alice)
    assert found.run_id == run.id and found.storage_key != first
    assert [file.key async for page in storage.pages("exports") for file in page] == [found.storage_key]


async def test_of_somebody_who_is_erased_nothing_is_made_or_left(
    database: Database, storage: Storage, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await take_up(database, await ask(database, people.alice))
    erase = update(User).where(User.id == people.alice.user_id).values(status=AccountStatus.ERASED.value)
    stored = storage.put_file

    async def put_and_erase(key: str, file: Any) -> None:
        await stored(key, file)
        async with database.write() as session:
            await session.execute(erase)

    monkeypatch.setattr(storage, "put_file", put_and_erase)
    with pytest.raises(JobFailed) as caught:
        await make_export(database, storage=storage, run=run)
    assert caught.value.permanent
    monkeypatch.undo()
    with pytest.raises(JobFailed):
        await make_export(database, storage=storage, run=run)
    assert [page async for page in storage.pages("exports")] == []
    assert (await one(database, AccountExport)).storage_key is None


async def test_a_run_that_was_taken_away_leaves_no_file(database: Database, storage: Storage, people: People) -> None:
    run = await take_up(database, await ask(database, people.alice))
    await set_(database, Run, run.id, worker="another", seq=2)
    with pytest.raises(RunTaken):
        await make_export(database, storage=storage, run=run)
    assert [page async for page in storage.pages("exports")] == []


async def test_without_storage_the_run_fails_and_can_be_tried_again(
    database: Database, settings: Settings, people: People
) -> None:
    run = await take_up(database, await ask(database, people.alice))
    nowhere = Storage("file:/proc/nowhere", settings.data_dir)
    with pytest.raises(StorageAway):
        await make_export(database, storage=nowhere, run=run)
    nowhere.close()
    assert (await run_row(database, run.id)).state == RunState.RUNNING


async def test_a_run_of_nobody_fails_for_good(database: Database, storage: Storage) -> None:
    [run] = await begin(database, job=JOB)
    with pytest.raises(JobFailed) as caught:
        await make_export(database, storage=storage, run=run)
    assert caught.value.permanent


async def test_cancelled_it_stops_and_leaves_nothing(database: Database, storage: Storage, people: People) -> None:
    rows = [task_row(people.alice.user_id) for _ in range(3000)]
    await add_rows(database, Task, rows)
    run = await take_up(database, await ask(database, people.alice))
    task = asyncio.create_task(make_export(database, storage=storage, run=run))
    while run.progress_done < 5 and not task.done():  # noqa: ASYNC110 (progress sets no event)
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [page async for page in storage.pages("exports")] == []
    assert (await find(database, people.alice)).storage_key is None
    async with database.read() as session:  # nothing holds on to a connection
        assert (await session.execute(select(User.id).limit(1))).scalar_one()
