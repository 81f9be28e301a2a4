"""Erasing an account: afterwards nothing in the database says who it was, and nothing of others is missing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, insert, select, update
from structlog.testing import capture_logs

from models import (
    AccountExport,
    Activity,
    ApiToken,
    Base,
    Delivery,
    Email,
    IdempotencyKey,
    LoginFailure,
    LogRecord,
    NotificationPreference,
    OneTimeToken,
    PhoneCode,
    RecoveryCode,
    RefreshToken,
    Reminder,
    Run,
    RunAttempt,
    Schedule,
    Session,
    Task,
    TaskAssignee,
    TaskShare,
    User,
)
from scheduler.access import Actor
from scheduler.accounts import avatar, export, traces
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.deletion import GRACE
from scheduler.accounts.erasure import NAME, SETTLED, erase, erase_accounts
from scheduler.accounts.login_lock import address_digest, confirmation_digest
from scheduler.accounts.names import folded
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.mail.templates import Rendered
from scheduler.outbox.write import email_row
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.settings import Settings
from scheduler.storage import FOLDER, Storage
from tests.factories import NOW, People, add_rows, add_task, reminder_row, run_row, user_row
from tests.services.stored import count, everything_stored, holding, one, rows, version

HER_NAME, ADDRESS, PHONE = "Zephyrine Quillfeather", "zephyrine@quill.example", "+4930901820"
IP, PROGRAM = "198.51.100.77", "Quillbrowser/7"
MARKS = (HER_NAME, "zephyrine", "quill", PHONE, PHONE.strip("+"), IP)
"""What must stand nowhere afterwards, in any case."""
OVER = NOW + GRACE
HELD_BY_NOBODY = {"metric", "worker"}
"""Tables that say nothing of people."""


def job() -> RunningJob:
    return RunningJob(id=new_id(), job="erase_accounts", trigger="cron", attempt=1, started_at=NOW, worker="worker")


@pytest.fixture
def storage(settings: Settings) -> Iterator[Storage]:
    storage = Storage(settings.storage_url, settings.data_dir)
    yield storage
    storage.close()


@pytest.fixture
def erasing(database: Database, storage: Storage) -> Callable[..., Awaitable[dict[str, int]]]:
    """The job, at some time."""

    async def erasing(now: Any = OVER) -> dict[str, int]:
        return await erase_accounts(database, storage=storage, run=job(), now=now)

    return erasing


async def add_zephyrine(database: Database, **columns: Any) -> Actor:
    row = user_row("zephyrine") | {
        "email": ADDRESS,
        "name": HER_NAME,
        "name_folded": folded(HER_NAME),
        "password_hash": "$argon2id$quill",
        "phone": PHONE,
        "phone_verified_at": NOW,
        "bio": f"I am {HER_NAME}.",
        "timezone": "Europe/Berlin",
        "locale": "de-AT",
        "avatar_key": "avatars/quill/1",
        "totp_secret": "quill",
        "totp_enabled_at": NOW,
        "totp_last_step": 1,
        "status": "deleting",
        "deletion_requested_at": NOW,
    }
    row |= columns
    await add_rows(database, User, [row])
    return Actor(user_id=row["id"], role=row["role"])


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def leave_traces(
    database: Database, storage: Storage, her: Actor, people: People, *, words: str = HER_NAME
) -> dict[str, UUID]:
    """Rows of hers in every table there is, and ids of some, by name. `words` stand in a task of her own."""
    user_id = her.user_id
    ids = {
        "alone": await add_task(database, her, title=words),
        "assigned": await add_task(database, her, assignees=[her, people.bob]),
        "shared": await add_task(database, her, shared_with=[(people.bob, "view")]),
        "others": await add_task(database, people.alice, assignees=[her], shared_with=[(her, "edit")]),
        "schedule": new_id(),
        "run": new_id(),
    }
    common = reminder_row(ids["others"], user_id, OVER)
    private = reminder_row(ids["others"], user_id, OVER, audience="me")
    await add_rows(database, Reminder, [common, private])
    session_id = new_id()
    message = email_row(
        email_id=new_id(),
        user_id=user_id,
        address=ADDRESS,
        name=HER_NAME,
        rendered=Rendered(f"For {HER_NAME}", f"Hello {HER_NAME}", f"<p>{HER_NAME}"),
        template="security",
        mail_from="punctual@example.com",
        now=NOW,
        headers={},
    )
    # The last one is named by no row: whoever made it was stopped before.
    for folder, name in ((avatar.FOLDER, "1"), (export.FOLDER, "1.zip"), (export.FOLDER, "2.zip")):
        await storage.put(f"{folder}/{user_id.hex}/{name}", HER_NAME.encode())
    await storage.put(f"{avatar.FOLDER}/{people.bob.user_id.hex}/1", b"his")
    audit: dict[str, Any] = {"at": NOW, "ip": IP, "user_agent": PROGRAM}
    by_her = {**audit, "actor_id": user_id}
    signed: dict[str, Any] = {"ip": IP, "user_agent": PROGRAM, "created_at": NOW, "last_used_at": NOW}
    everything: list[tuple[type[Base], list[dict[str, Any]]]] = [
        (Session, [{"id": session_id, "user_id": user_id, **signed}]),
        (RefreshToken, [{"digest": digest("refresh"), "session_id": session_id, "created_at": NOW}]),
        (
            ApiToken,
            [
                {
                    "id": new_id(),
                    "digest": digest("token"),
                    "user_id": user_id,
                    "name": f"{HER_NAME}'s",
                    "scopes": "admin",
                    "created_at": NOW,
                }
            ],
        ),
        (
            OneTimeToken,
            [
                {
                    "digest": digest("link"),
                    "user_id": user_id,
                    "purpose": "verify_email",
                    "email": ADDRESS,
                    "created_at": NOW,
                    "expires_at": OVER,
                }
            ],
        ),
        (
            PhoneCode,
            [{"user_id": user_id, "phone": PHONE, "attempts": 0, "created_at": NOW, "expires_at": OVER}],
        ),
        (RecoveryCode, [{"user_id": user_id, "digest": digest("code")}]),
        (NotificationPreference, [{"user_id": user_id, "type": "reminder", "channel": "email", "enabled": False}]),
        (
            LoginFailure,
            [
                {"id": new_id(), "address_digest": each, "at": NOW}
                for each in (address_digest(ADDRESS), confirmation_digest(user_id), address_digest("bob@example.com"))
            ],
        ),
        (
            IdempotencyKey,
            [
                {
                    "digest": digest("key"),
                    "user_id": user_id,
                    "fingerprint": digest("body"),
                    "owner": new_id(),
                    "created_at": NOW,
                    "status": 201,
                    "headers": {"X": IP},
                    "body": ADDRESS.encode(),
                }
            ],
        ),
        (
            AccountExport,
            [
                {
                    "user_id": user_id,
                    "run_id": new_id(),
                    "requested_at": NOW,
                    "storage_key": f"{export.FOLDER}/{user_id.hex}/1.zip",
                    "size": 9,
                    "expires_at": OVER,
                }
            ],
        ),
        (
            Schedule,
            [
                {
                    "id": ids["schedule"],
                    "user_id": user_id,
                    "job": "run_schedule",
                    "name": f"{HER_NAME}'s",
                    "cron": "0 9 * * *",
                    "timezone": "UTC",
                    "action": {"type": "http_request", "url": f"https://quill.example/?to={ADDRESS}"},
                    "enabled": True,
                    "overlap": "skip",
                    "missed": "once",
                    "next_run_at": OVER,
                    "created_at": NOW,
                    "updated_at": NOW,
                }
            ],
        ),
        (
            Run,
            [
                run_row(
                    id=ids["run"],
                    owner_id=user_id,
                    schedule_id=ids["schedule"],
                    arguments={"url": "https://quill.example"},
                    result={"body": HER_NAME},
                    error={"message": ADDRESS},
                ),
                run_row(
                    owner_id=user_id,
                    schedule_id=ids["schedule"],
                    job="run_schedule",
                    queue="schedules",
                    state="queued",
                    finished_at=None,
                    arguments={"url": "https://quill.example"},
                ),
            ],
        ),
        (
            RunAttempt,
            [
                {
                    "run_id": ids["run"],
                    "seq": 1,
                    "number": 1,
                    "state": "failed",
                    "finished_at": NOW,
                    "error": {"message": HER_NAME},
                }
            ],
        ),
        (Email, [message | {"state": "sent", "sent_at": NOW}, message | {"id": new_id(), "message_id": "<2@x>"}]),
        (
            Delivery,
            [
                {
                    "id": new_id(),
                    "reminder_id": common["id"],
                    "task_id": ids["others"],
                    "user_id": user_id,
                    "audience": "assignees",
                    "channel": "email",
                    "state": state,
                    "fire_at": NOW + timedelta(days=day),
                    "email_id": message["id"],
                    "created_at": NOW,
                }
                for day, state in enumerate(("sent", "sending"))
            ],
        ),
        (
            LogRecord,
            [
                {
                    "id": new_id(),
                    "at": NOW,
                    "level": "info",
                    "event": "security.signed_in",
                    "logger": "security",
                    "user_id": user_id,
                    "data": {"ip": IP, "name": HER_NAME},
                }
            ],
        ),
        (
            Activity,
            [
                {"id": new_id(), "action": action, "target_type": kind, "target_id": target, "changes": changes, **by}
                for action, kind, target, changes, by in (
                    ("profile_changed", "user", user_id, {"name": ["Quill", HER_NAME]}, by_her),
                    ("signed_in", "session", session_id, {}, by_her),
                    ("task_changed", "task", ids["alone"], {"title": ["x", words]}, by_her),
                    ("task_changed", "task", ids["assigned"], {"title": ["old", "new"]}, by_her),
                    ("user_changed", "user", people.carol.user_id, {"role": ["user", "manager"]}, by_her),
                    (
                        "user_changed",
                        "user",
                        user_id,
                        {"name": [HER_NAME, "Z"], "role": ["user", "manager"]},
                        {"at": NOW, "actor_id": people.eve.user_id, "ip": "::1", "user_agent": "admin's"},
                    ),
                )
            ],
        ),
    ]
    async with database.write() as session:
        for model, of_hers in everything:
            for row in of_hers:
                await session.execute(insert(model.__table__).values(row))
    return ids


async def test_nothing_says_who_it_was(
    database: Database, storage: Storage, settings: Settings, people: People, erasing: Callable[..., Any]
) -> None:
    her = await add_zephyrine(database)
    ids = await leave_traces(database, storage, her, people)
    before = await everything_stored(database)
    empty = {name for name, found in before.items() if not found}
    assert empty <= HELD_BY_NOBODY, f"what is in these tables goes with a person, or is named here: {empty}"
    assert len(holding(before, HER_NAME.encode())) > 10 and len(holding(before, IP.encode())) > 3

    counts = await erasing()
    stored = await everything_stored(database)
    for mark in (*(mark.encode() for mark in MARKS), address_digest(ADDRESS), PROGRAM.encode()):
        assert holding(stored, mark) == set(), mark
    # Her id stands where others' things point at it, and in what says that there was somebody.
    assert holding(stored, her.user_id.bytes) == {
        "user.id",
        "task.creator_id",
        "reminder.user_id",
        "activity.actor_id",
        "activity.target_id",
    }
    assert holding(stored, str(her.user_id).encode()) == {"user.email"}
    assert (counts["erased"], counts["left"], counts["files"]) == (1, 0, 3)
    (left,) = [path for path in (settings.data_dir / FOLDER).rglob("*") if path.is_file()]
    assert left.read_bytes() == b"his"

    # What is others' too has stayed, and shows the change.
    assert {row.id for row in await rows(database, Task)} == {ids["assigned"], ids["shared"], ids["others"]}
    assert [await version(database, ids[name]) for name in ("assigned", "shared")] == [2, 2]
    assert await version(database, ids["others"]) >= 2
    assert [row.user_id for row in await rows(database, TaskAssignee)] == [people.bob.user_id]
    assert [row.user_id for row in await rows(database, TaskShare)] == [people.bob.user_id]
    assert (await one(database, Reminder)).audience == "assignees"
    assert await count(database, LoginFailure) == 1
    kept = {(row.action, row.actor_id, row.target_id): row.changes for row in await rows(database, Activity)}
    assert kept == {
        ("task_changed", her.user_id, ids["assigned"]): {"title": ["old", "new"]},
        ("user_changed", her.user_id, people.carol.user_id): {"role": ["user", "manager"]},
        ("user_changed", people.eve.user_id, her.user_id): {"role": ["user", "manager"]},
        ("account_erased", None, her.user_id): {},
    }
    user = await one(database, User, User.id == her.user_id)
    assert (user.name, user.role, user.status, user.avatar_key) == (NAME, "user", "erased", None)
    assert (user.timezone, user.locale, user.totp_enabled_at, user.phone_verified_at) == ("UTC", "en", None, None)
    # And again, once nothing can come any more: then it is done with.
    assert user.deletion_requested_at == OVER
    assert (await erasing(OVER + SETTLED))["erased"] == 0
    assert (await one(database, User, User.id == her.user_id)).deletion_requested_at is None
    assert set((await erasing(OVER + 2 * SETTLED)).values()) == {0}


# -- when, and whom ------------------------------------------------------------------------------------------


async def statuses(database: Database) -> dict[str, str]:
    return {row.name: row.status for row in await rows(database, User)}


async def test_after_fourteen_days_and_not_before(database: Database, erasing: Callable[..., Any]) -> None:
    await add_zephyrine(database)
    assert (await erasing(OVER - timedelta(microseconds=1)))["erased"] == 0
    assert await statuses(database) == {HER_NAME: "deleting"}
    assert (await erasing(OVER))["erased"] == 1
    assert await statuses(database) == {NAME: "erased"}


async def test_only_those_who_asked_and_did_not_take_it_back(database: Database, erasing: Callable[..., Any]) -> None:
    for number, (status, asked_at) in enumerate(
        (
            ("active", None),
            ("deactivated", None),
            # Deactivated by an administrator since: it was asked for all the same.
            ("deactivated", NOW),
            ("deleting", NOW + timedelta(days=1)),
        )
    ):
        who = {"name": str(number), "email": f"{number}@example.com"}
        await add_zephyrine(database, **who, status=status, deletion_requested_at=asked_at)
    assert (await erasing())["erased"] == 1
    assert await statuses(database) == {"0": "active", "1": "deactivated", NAME: "erased", "3": "deleting"}


async def test_who_comes_back_at_the_last_moment_loses_all_or_nothing(
    database: Database, people: People, erasing: Callable[..., Any]
) -> None:
    ends = set()
    for number in range(6):
        her = await add_zephyrine(database, email=f"{number}@example.com")
        task_id = await add_task(database, her)

        async def come_back(her: Actor = her) -> None:
            async with database.write() as session:
                query = select(User.status).where(User.id == her.user_id).with_for_update()
                if (await session.execute(query)).scalar_one() == "deleting":
                    back = {"status": "active", "deletion_requested_at": None}
                    await session.execute(update(User).where(User.id == her.user_id).values(back))

        await asyncio.gather(*((erasing(), come_back()) if number % 2 else (come_back(), erasing())))
        row = await one(database, User, User.id == her.user_id)
        tasks = await count(database, Task, Task.id == task_id)
        ends.add((row.status, row.name, tasks))
    assert ends <= {("erased", NAME, 0), ("active", HER_NAME, 1)}


async def test_whom_an_administrator_deleted_keeps_the_tasks_and_loses_the_rest(
    database: Database, storage: Storage, people: People, erasing: Callable[..., Any]
) -> None:
    her = await add_zephyrine(database, status="active", deletion_requested_at=None)
    # What a task says is the task's, and tasks stay.
    await leave_traces(database, storage, her, people, words="Buy flowers")
    async with database.write() as session:
        await erase(session, user_id=her.user_id, with_own_tasks=False, now=NOW)
    assert await count(database, Email, Email.state != "sent") == await count(database, Schedule) == 0
    ended = await one(database, Delivery, Delivery.state != "sent")
    assert (ended.state, ended.reason) == ("skipped", "deactivated")
    counts = await erasing(NOW)
    assert (counts["erased"], counts["tasks"], counts["emails"], counts["files"]) == (0, 0, 1, 3)
    stored = await everything_stored(database)
    for mark in MARKS:
        assert holding(stored, mark.encode()) == set(), mark
    assert await count(database, Task, Task.deleted_at.is_(None)) == 4


# -- whatever happens ----------------------------------------------------------------------------------------


@pytest.mark.heavy(on="sqlite")
async def test_stopped_anywhere_the_next_run_goes_on(
    database: Database, storage: Storage, people: People, erasing: Callable[..., Any]
) -> None:
    async def statements_of(fail_at: int | None) -> int:
        """How many there were; at the given one the run is stopped."""
        seen = 0

        def note(*_: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == fail_at:
                raise RuntimeError("stopped")

        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        try:
            with capture_logs(), pytest.raises((JobFailed, RuntimeError)) if fail_at else nullcontext():
                await erasing()
        finally:
            event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        return seen

    await leave_traces(database, storage, await add_zephyrine(database), people)
    total = await statements_of(None)
    assert total > 40
    for fail_at in range(2, total, total // 7):
        await leave_traces(database, storage, await add_zephyrine(database), people)
        await statements_of(fail_at)
        assert (await erasing(OVER + SETTLED))["left"] == 0
        stored = await everything_stored(database)
        for mark in MARKS:
            assert holding(stored, mark.encode()) == set(), (fail_at, mark)


@pytest.mark.heavy(on="mariadb")
async def test_however_much_it_is_it_goes_a_little_at_a_time(
    database: Database, people: People, erasing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "AT_ONCE", 4)
    her = await add_zephyrine(database)
    record = {"at": NOW, "level": "info", "event": "x", "logger": "x", "user_id": her.user_id, "data": {}}
    await add_rows(database, LogRecord, [record | {"id": new_id()} for _ in range(18)])
    shared = await add_task(database, her, assignees=[people.bob])
    by_her = {"at": NOW, "actor_id": her.user_id, "ip": IP, "user_agent": "", "changes": {}}
    for target_type, target_id in (("session", new_id()), ("task", shared)):
        deed = by_her | {"action": "x", "target_type": target_type, "target_id": target_id}
        await add_rows(database, Activity, [deed | {"id": new_id()} for _ in range(9)])
    admins = by_her | {"actor_id": people.eve.user_id, "action": "user_changed", "target_type": "user"}
    named = [{"id": new_id(), "target_id": her.user_id, "changes": {"name": [HER_NAME, "x"]}} for _ in range(9)]
    await add_rows(database, Activity, [admins | each for each in named])
    for _ in range(9):
        await add_task(database, her)
    counts = await erasing()
    assert (counts["log_records"], counts["activity"], counts["tasks"]) == (18, 9, 9)
    assert await count(database, LogRecord) == 0 and await count(database, Task) == 1
    assert await count(database, Activity, Activity.actor_id == her.user_id, Activity.ip.is_(None)) == 9
    assert {tuple(row.changes) for row in await rows(database, Activity, Activity.target_id == her.user_id)} == {()}
    assert holding(await everything_stored(database), HER_NAME.encode()) == set()


async def test_one_that_cant_be_erased_holds_up_nobody(
    database: Database, settings: Settings, erasing: Callable[..., Any]
) -> None:
    stuck = await add_zephyrine(database, deletion_requested_at=NOW - timedelta(days=1))
    foreign = settings.data_dir / FOLDER / avatar.FOLDER / stuck.user_id.hex / "no key of ours!"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    fine = await add_zephyrine(database, email="2@example.com")
    with capture_logs() as logs, pytest.raises(JobFailed) as caught:
        await erasing()
    assert [line["account_id"] for line in logs if line["event"] == "account.not_erased"] == [str(stuck.user_id)]
    assert caught.value.result is not None and (caught.value.result["erased"], caught.value.result["left"]) == (2, 1)
    assert str(stuck.user_id) in str(caught.value) and str(fine.user_id) not in str(caught.value)
    # The person is gone all the same; the next run tries again.
    assert {row.name for row in await rows(database, User)} == {NAME}
    foreign.unlink()
    assert (await erasing(OVER + SETTLED))["left"] == 0
    assert await count(database, User, User.deletion_requested_at.is_not(None)) == 0


async def test_two_at_once_do_no_harm(
    database: Database, storage: Storage, people: People, erasing: Callable[..., Any]
) -> None:
    await leave_traces(database, storage, await add_zephyrine(database), people)
    both = await asyncio.gather(erasing(), erasing())
    assert sum(each["erased"] for each in both) == 1 and sum(each["left"] for each in both) == 0
    stored = await everything_stored(database)
    for mark in MARKS:
        assert holding(stored, mark.encode()) == set(), mark


async def test_a_place_given_while_the_person_was_erased_is_given_up(
    database: Database, people: People, erasing: Callable[..., Any]
) -> None:
    her = await add_zephyrine(database)
    await erasing()
    late = await add_task(database, people.alice, assignees=[her], shared_with=[(her, "view")])
    assert (await erasing(OVER + SETTLED))["places"] == 2
    assert await count(database, TaskAssignee) == await count(database, TaskShare) == 0
    assert await version(database, late) > 1


async def test_nobody_can_take_the_address_of_an_erased_account_beforehand(database: Database) -> None:
    her = await add_zephyrine(database)
    async with database.write() as session:
        await erase(session, user_id=her.user_id, with_own_tasks=True, now=NOW)
    address = (await one(database, User)).email
    with pytest.raises(ValueError):
        normalise_email(address)
    # And hers is free again.
    await add_zephyrine(database)
