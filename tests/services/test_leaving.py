"""Deactivating one's account, asking for its deletion, and what happens to what would have gone out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from models import Activity, ApiToken, Delivery, Email, Reminder, Session, User
from scheduler.access import Actor
from scheduler.accounts import deletion
from scheduler.accounts.client import Client
from scheduler.accounts.revocation import REVOKED
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, NotFound
from scheduler.identifiers import new_id
from scheduler.settings import Settings
from tests.factories import NOW, People, add_reminder, add_rows, add_task
from tests.services.conftest import Clock, Maildir, Worker
from tests.services.stored import count, one, rows, set_
from tests.services.test_user_administration import session_row

CLIENT = Client("192.0.2.1", "curl/8")
HASH = "$argon2id$ of a password"
Leave = Callable[..., Awaitable[None]]


@pytest.fixture
async def leave(database: Database, settings: Settings, people: People) -> Leave:
    """`leave(service, actor)`, once the password was confirmed."""
    for person in people:
        await set_(database, User, person.user_id, password_hash=HASH)

    async def leave(service: Any, actor: Actor, *, confirmed: str = HASH, settings: Settings = settings) -> None:
        await database.retry_write(
            lambda session: service(
                session, actor=actor, confirmed=confirmed, client=CLIENT, settings=settings, now=NOW
            )
        )

    return leave


def token_row(user: Actor) -> dict[str, Any]:
    return {
        "id": new_id(),
        "digest": new_id().bytes * 2,
        "user_id": user.user_id,
        "name": "A script",
        "scopes": "tasks:read",
        "created_at": NOW,
    }


async def test_deactivating(database: Database, people: People, leave: Leave) -> None:
    await add_rows(database, Session, [session_row(people.alice)])
    await add_rows(database, ApiToken, [token_row(people.alice)])
    with capture_logs() as logs:
        await leave(deletion.deactivate_account, people.alice)
    alice = await one(database, User, User.id == people.alice.user_id)
    assert (alice.status, alice.deletion_requested_at, alice.updated_at) == ("deactivated", None, NOW)
    # Both are refused as those of an account that is deactivated, and not as those of nobody.
    assert (await one(database, Session)).ended_at is None
    assert await count(database, ApiToken) == 1
    email = await one(database, Email)
    assert (email.template, email.subject) == ("security", "Your account was deactivated")
    assert b"192.0.2.1" in email.message
    activity = await one(database, Activity)
    assert (activity.actor_id, activity.action, activity.ip) == (alice.id, "account_deactivated", "192.0.2.1")
    assert [line["event"] for line in logs] == ["security.account_deactivated"]


async def test_asking_for_deletion(database: Database, people: People, leave: Leave) -> None:
    await set_(database, User, people.alice.user_id, timezone="Pacific/Kiritimati")
    await add_rows(database, Session, [session_row(people.alice), session_row(people.bob)])
    await add_rows(database, ApiToken, [token_row(people.alice), token_row(people.bob)])
    await leave(deletion.request_deletion, people.alice)
    alice = await one(database, User, User.id == people.alice.user_id)
    assert (alice.status, alice.deletion_requested_at) == ("deleting", NOW)
    (ended,) = await rows(database, Session, Session.ended_at == NOW)
    assert ended.user_id == alice.id
    assert (await one(database, ApiToken)).user_id == people.bob.user_id
    email = await one(database, Email)
    assert (email.template, email.recipient) == ("account_deletion", "alice@example.com")
    # 14 days from noon in UTC, which is the next day where she is.
    assert b"Tue 17 Mar 2026 (Pacific/Kiritimati)" in email.message
    assert (await one(database, Activity)).action == "account_deletion_requested"


async def test_both_void_what_is_remembered_of_sign_ins(
    database: Database, settings: Settings, people: People, leave: Leave
) -> None:
    for service, person in ((deletion.deactivate_account, people.alice), (deletion.request_deletion, people.bob)):
        async with database.write() as session:
            await service(session, actor=person, confirmed=HASH, client=CLIENT, settings=settings, now=NOW)
            assert session.info[REVOKED] == {person.user_id}


@pytest.mark.parametrize("service", [deletion.deactivate_account, deletion.request_deletion])
async def test_what_stands_against_it(database: Database, people: People, leave: Leave, service: Any) -> None:
    with pytest.raises(Forbidden) as changed:  # the password, since it was confirmed
        await leave(service, people.alice, confirmed="$argon2id$ of an old password")
    assert changed.value.error_code == "bad_password"
    with pytest.raises(Conflict) as last:
        await leave(service, people.eve)
    assert last.value.error_code == "last_admin"
    await set_(database, User, people.bob.user_id, status="erased")
    with pytest.raises(NotFound):
        await leave(service, people.bob)
    assert {row.status for row in await rows(database, User, User.id != people.bob.user_id)} == {"active"}
    assert await count(database, Email) == await count(database, Activity) == 0


async def test_of_two_last_administrators_who_leave_at_once_one_stays(
    database: Database, people: People, leave: Leave
) -> None:
    await set_(database, User, people.dora.user_id, role="admin")
    outcomes = await asyncio.gather(
        leave(deletion.deactivate_account, people.dora),
        leave(deletion.request_deletion, people.eve),
        return_exceptions=True,
    )
    assert sorted(getattr(each, "error_code", "left") for each in outcomes) == ["last_admin", "left"]
    assert await count(database, User, User.role == "admin", User.status == "active") == 1


async def test_where_verification_is_required_no_such_mail_goes_to_an_unverified_address(
    database: Database, settings: Settings, people: People, leave: Leave
) -> None:
    strict = settings.model_copy(update={"require_verified_email": True})
    await set_(database, User, people.alice.user_id, email_verified_at=None)
    await set_(database, User, people.bob.user_id, email_verified_at=None)
    await leave(deletion.request_deletion, people.alice, settings=strict)
    await leave(deletion.deactivate_account, people.bob, settings=strict)
    assert await count(database, Email) == 0


@pytest.mark.parametrize("status", ["deactivated", "deleting", "erased"])
async def test_nobody_is_reminded_whose_account_is_not_active(
    database: Database, people: People, worker: Worker, clock: Clock, maildir: Maildir, status: str
) -> None:
    task_id = await add_task(database, people.alice, assignees=[people.alice, people.bob])
    own_task_id = await add_task(database, people.alice)
    for each, whose in ((task_id, people.bob), (own_task_id, people.alice)):
        await add_reminder(database, each, whose, NOW + timedelta(minutes=1))
    await set_(database, User, people.alice.user_id, status=status)
    clock.pass_(minutes=1)
    await worker.work()
    assert [message["To"] for message in maildir.messages()] == ["Bob <bob@example.com>"]
    states = {(row.user_id, row.state, row.reason) for row in await rows(database, Delivery)}
    assert states == {(people.bob.user_id, "sent", None), (people.alice.user_id, "skipped", "deactivated")}
    own = await one(database, Reminder, Reminder.task_id == own_task_id)
    assert (own.state, own.reason) == ("skipped", "deactivated")
