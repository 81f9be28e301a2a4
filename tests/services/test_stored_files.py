"""Files that go by themselves: exports after their day, and what no row names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta

import pytest

from models import AccountExport, User
from scheduler.access import Actor
from scheduler.accounts import avatar
from scheduler.accounts.client import Client
from scheduler.accounts.export import KEPT
from scheduler.cleanup.files import NOBODYS_AFTER, clean_files
from scheduler.clock import now as present
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.settings import Settings
from scheduler.storage import FOLDER, Storage, StorageAway
from tests.factories import NOW, People, add_rows
from tests.services.stored import one, rows

CLIENT = Client(ip="192.0.2.7", user_agent="a browser")
LATER = NOBODYS_AFTER + timedelta(minutes=1)


@pytest.fixture
def storage(settings: Settings) -> Iterator[Storage]:
    storage = Storage(settings.storage_url, settings.data_dir)
    yield storage
    storage.close()


async def keys(storage: Storage) -> list[str]:
    found = [
        file.key for folder in ("avatars", "exports", "x") async for page in storage.pages(folder) for file in page
    ]
    return sorted(found)


async def set_picture(database: Database, storage: Storage, actor: Actor) -> str:
    person = await avatar.set_avatar(database, storage, actor=actor, picture=b"RIFF", client=CLIENT, now=NOW)
    return str(person.avatar_key)


def export_row(actor: Actor, key: str | None, expires_at: object) -> dict[str, object]:
    return {
        "user_id": actor.user_id,
        "run_id": new_id(),
        "requested_at": NOW,
        "storage_key": key,
        "size": 4,
        "expires_at": expires_at,
    }


async def test_an_export_goes_after_its_day_with_its_file(database: Database, storage: Storage, people: People) -> None:
    old, young = (f"exports/{each.user_id.hex}/1.zip" for each in (people.alice, people.bob))
    for key in (old, young):
        await storage.put(key, b"PK..")
    await add_rows(
        database,
        AccountExport,
        [
            export_row(people.alice, old, NOW),
            export_row(people.bob, young, NOW + timedelta(seconds=1)),
            export_row(people.carol, None, NOW - KEPT),  # one that was never made
        ],
    )
    assert await clean_files(database, storage, now=NOW) == {"exports": 2, "files": 0}
    assert (await one(database, AccountExport)).user_id == people.bob.user_id
    assert await keys(storage) == [young]
    assert await clean_files(database, storage, now=NOW) == {"exports": 0, "files": 0}


async def test_what_no_row_names_goes_after_a_day(database: Database, storage: Storage, people: People) -> None:
    named = await set_picture(database, storage, people.alice)
    export = f"exports/{people.alice.user_id.hex}/1.zip"
    nobodys = [
        f"avatars/{people.alice.user_id.hex}/0000000000000000",  # stored, and the process died
        f"avatars/{people.bob.user_id.hex}/0000000000000000",  # who has none
        f"avatars/{new_id().hex}/0000000000000000",  # of somebody who is not there
        "avatars/stray",
        f"exports/{people.bob.user_id.hex}/1.zip",
    ]
    for key in (export, *nobodys, "x/of-another-kind"):
        await storage.put(key, b"x")
    await add_rows(database, AccountExport, [export_row(people.alice, export, present() + 2 * NOBODYS_AFTER)])
    assert (await clean_files(database, storage, now=present()))["files"] == 0  # it may be on its way to its row
    assert (await clean_files(database, storage, now=present() + LATER))["files"] == len(nobodys)
    assert await keys(storage) == sorted([named, export, "x/of-another-kind"])


async def test_what_was_left_behind_is_found(
    database: Database, storage: Storage, people: People, settings: Settings
) -> None:
    """The storage goes away between the row's change and the old file's end."""
    first = await set_picture(database, storage, people.alice)
    folder = settings.data_dir / FOLDER

    def lose_storage(_: object) -> None:
        folder.rename(folder.with_name("elsewhere"))
        folder.write_bytes(b"")

    await avatar.remove_avatar(database, storage, actor=people.alice, check=lose_storage, client=CLIENT, now=NOW)
    folder.unlink()
    folder.with_name("elsewhere").rename(folder)
    assert (await one(database, User, User.id == people.alice.user_id)).avatar_key is None
    assert await keys(storage) == [first]
    await clean_files(database, storage, now=present() + LATER)
    assert await keys(storage) == []


async def test_a_storage_that_is_away_keeps_the_rows(database: Database, settings: Settings, people: People) -> None:
    folder = settings.data_dir / FOLDER
    os.close(os.open(folder, os.O_CREAT | os.O_WRONLY))
    storage = Storage(settings.storage_url, settings.data_dir)
    await add_rows(database, AccountExport, [export_row(people.alice, "exports/a/1.zip", NOW)])
    with pytest.raises(StorageAway):
        await clean_files(database, storage, now=NOW)
    assert len(await rows(database, AccountExport)) == 1
    assert (await one(database, User, User.id == people.alice.user_id)).avatar_key is None
    storage.close()
