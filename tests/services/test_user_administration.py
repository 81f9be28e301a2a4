"""What administrators do with accounts: make, change, delete, sign out; and that one of them is always left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from models import Activity, Email, LoginFailure, OneTimeToken, Run, Session, Task, TaskAssignee, TaskShare, User
from scheduler.access import Actor, Role
from scheduler.accounts import administration
from scheduler.accounts.client import Client
from scheduler.accounts.login_lock import add_failure, address_digest
from scheduler.accounts.one_time_tokens import Purpose, make_token
from scheduler.accounts.password_reset import find_reset
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.revocation import REVOKED
from scheduler.accounts.sign_up import create_admin
from scheduler.accounts.users import hold
from scheduler.accounts.verification import verify_email
from scheduler.database import Database
from scheduler.errors import Conflict, Invalid, InvalidToken, NotFound, PunctualError
from scheduler.identifiers import new_id
from scheduler.settings import Settings
from scheduler.tasks.change import change_task
from tests.factories import NOW, People, add_person, add_reminder, add_rows, add_task
from tests.services.stored import count, one, rows, set_, version
from tests.services.test_tasks import LATER

CLIENT = Client("192.0.2.1", "a browser")
PASSWORD = "correct horse battery"


@pytest.fixture
def change(database: Database, settings: Settings) -> Callable[..., Awaitable[Any]]:
    """`change(actor, of, **changes)`."""

    async def change(actor: Actor, of: Actor, **changes: Any) -> Any:
        return await database.retry_write(
            lambda session: administration.change_user(
                session, actor=actor, user_id=of.user_id, changes=changes, client=CLIENT, settings=settings, now=LATER
            )
        )

    return change


async def delete(database: Database, actor: Actor, user_id: UUID) -> None:
    await database.retry_write(
        lambda session: administration.delete_user(session, actor=actor, user_id=user_id, client=CLIENT, now=LATER)
    )


@pytest.fixture
def create(database: Database, settings: Settings, passwords: Passwords, people: People) -> Callable[..., Any]:
    async def create(**values: Any) -> Any:
        return await administration.create_user(
            database,
            actor=people.eve,
            **{"email": "frida@example.com", "name": "Frida"} | values,
            client=CLIENT,
            settings=settings,
            passwords=passwords,
            now=NOW,
        )

    return create


def session_row(user: Actor) -> dict[str, Any]:
    return {
        "id": new_id(),
        "user_id": user.user_id,
        "ip": "::1",
        "user_agent": "",
        "created_at": NOW,
        "last_used_at": NOW,
    }


# -- making --------------------------------------------------------------------------------------------------


async def test_without_a_password_an_invitation_goes_out(
    database: Database, people: People, create: Callable[..., Any]
) -> None:
    with capture_logs() as logs:
        made = await create(email=" Frida@Example.COM ", role=Role.MANAGER, timezone="Europe/Berlin")
    assert (made.email, made.name, made.role, made.status) == ("frida@example.com", "Frida", "manager", "active")
    assert (made.timezone, made.email_verified_at, made.name_folded) == ("Europe/Berlin", None, "frida")
    email = await one(database, Email)
    assert (email.template, email.recipient, email.user_id) == ("invitation", "frida@example.com", made.id)
    assert (await one(database, OneTimeToken)).purpose == "invitation"
    assert (await one(database, User, User.id == made.id)).password_hash is None
    activity = await one(database, Activity)
    assert (activity.actor_id, activity.action, activity.target_id) == (people.eve.user_id, "user_created", made.id)
    assert (activity.ip, activity.user_agent, activity.changes) == (*CLIENT, {"role": [None, "manager"]})
    (logged,) = [line for line in logs if line["event"] == "security.user_created"]
    assert logged["by_user_id"] == str(people.eve.user_id) and "frida" not in str(logged)


async def test_with_a_password_the_address_is_to_be_verified(
    database: Database, passwords: Passwords, create: Callable[..., Any]
) -> None:
    made = await create(password=PASSWORD)
    assert made.role == "user" and made.timezone == "UTC"
    assert (await one(database, Email)).template == "verify_email"
    stored = (await one(database, User, User.id == made.id)).password_hash
    assert await passwords.matches(stored, PASSWORD)


async def test_what_is_wrong_is_said_at_its_place_and_leaves_nothing(
    database: Database, people: People, create: Callable[..., Any]
) -> None:
    with pytest.raises(Invalid) as caught:
        await create(email="nobody", name=" ", password="short")
    assert [error.field for error in caught.value.errors] == ["/email", "/password", "/name"]
    with pytest.raises(Conflict) as taken:
        await create(email="ALICE@example.com")
    assert taken.value.error_code == "email_taken"
    assert await count(database, User) == len(people)
    assert await count(database, Email) == await count(database, Activity) == 0


async def test_of_two_accounts_with_one_address_made_at_once_one_is_there(
    database: Database, create: Callable[..., Any]
) -> None:
    outcomes = await asyncio.gather(*(create() for _ in range(8)), return_exceptions=True)
    assert sorted(getattr(each, "error_code", "made") for each in outcomes) == ["email_taken"] * 7 + ["made"]
    assert await count(database, User, User.email == "frida@example.com") == 1
    assert await count(database, Email) == await count(database, Activity) == 1


# -- changing ------------------------------------------------------------------------------------------------


async def test_a_role_counts_at_once_and_its_owner_is_told(
    database: Database, settings: Settings, people: People, change: Callable[..., Any]
) -> None:
    async with database.write() as session:
        await administration.change_user(
            session,
            actor=people.eve,
            user_id=people.bob.user_id,
            changes={"role": "manager"},
            client=CLIENT,
            settings=settings,
            now=LATER,
        )
        assert session.info[REVOKED] == {people.bob.user_id}
    email = await one(database, Email)
    assert (email.template, email.recipient, email.subject) == (
        "security",
        "bob@example.com",
        "Your role was changed",
    )
    assert b"192.0.2.1" not in email.message  # the administrator's, and none of Bob's business
    activity = await one(database, Activity)
    assert (activity.action, activity.changes) == ("user_changed", {"role": ["user", "manager"]})
    # The same again changes nothing, and tells nobody.
    assert (await change(people.eve, people.bob, role="manager")).updated_at == LATER
    assert await count(database, Email) == await count(database, Activity) == 1


async def test_a_profile_follows_with_all_that_hangs_on_it(
    database: Database, people: People, change: Callable[..., Any]
) -> None:
    await set_(database, User, people.bob.user_id, phone="+4930901820", phone_verified_at=NOW)
    task_id = await add_task(database, people.alice, assignees=[people.bob])
    with capture_logs() as logs:
        changed = await change(people.eve, people.bob, name="Bärt", bio="", phone="+4930901821", locale="de")
    assert (changed.name, changed.name_folded, changed.phone_verified_at) == ("Bärt", "bart", None)
    assert changed.updated_at == LATER and await version(database, task_id) == 2
    assert (await one(database, Activity)).changes == {
        "name": ["Bob", "Bärt"],
        "phone": ["+4930901820", "+4930901821"],
        "locale": ["en", "de"],
    }
    assert await count(database, Email) == 0
    (logged,) = [line for line in logs if line["event"] == "security.user_changed"]
    assert logged["fields"] == ["locale", "name", "phone"] and "4930901821" not in str(logged)


async def test_who_is_brought_back_is_signed_out_everywhere(
    database: Database, people: People, change: Callable[..., Any]
) -> None:
    await add_rows(database, Session, [session_row(people.bob), session_row(people.carol)])
    await change(people.eve, people.bob, status="deactivated")
    assert await count(database, Session, Session.ended_at.is_(None)) == 2
    await change(people.eve, people.bob, status="active")
    (open_one,) = await rows(database, Session, Session.ended_at.is_(None))
    assert open_one.user_id == people.carol.user_id
    assert [email.subject for email in await rows(database, Email)] == [
        "Your account was deactivated",
        "Your account was brought back",
    ]
    assert [row.changes for row in await rows(database, Activity)] == [
        {"status": ["active", "deactivated"]},
        {"status": ["deactivated", "active"]},
    ]


async def test_bringing_back_takes_a_deletion_back_and_deactivating_does_not(
    database: Database, people: People, change: Callable[..., Any]
) -> None:
    await set_(database, User, people.bob.user_id, status="deleting", deletion_requested_at=NOW)
    await change(people.eve, people.bob, status="deactivated")
    bob = await one(database, User, User.id == people.bob.user_id)
    assert (bob.status, bob.deletion_requested_at) == ("deactivated", NOW)
    # To clients nothing has changed, so nobody is told of a change.
    assert await count(database, Activity) == await count(database, Email) == 0
    await change(people.eve, people.bob, status="active")
    bob = await one(database, User, User.id == people.bob.user_id)
    assert (bob.status, bob.deletion_requested_at) == ("active", None)
    assert (await one(database, Activity)).changes == {"status": ["deactivated", "active"]}


# -- the last one --------------------------------------------------------------------------------------------


async def test_the_last_active_administrator_stays(
    database: Database, people: People, change: Callable[..., Any]
) -> None:
    for other in ({"status": "deactivated"}, {"status": "deleting"}, {"status": "erased"}, {"role": "manager"}):
        await set_(database, User, people.dora.user_id, **{"role": "admin", "status": "active"} | other)
        for attempt in (
            change(people.eve, people.eve, role="user"),
            change(people.eve, people.eve, status="deactivated"),
            delete(database, people.eve, people.eve.user_id),
        ):
            with pytest.raises(Conflict) as caught:
                await attempt
            assert caught.value.error_code == "last_admin"
    eve = await one(database, User, User.id == people.eve.user_id)
    assert (eve.role, eve.status) == ("admin", "active")
    assert await count(database, Activity) == await count(database, Run) == 0
    # What leaves them an active administrator is nobody's concern.
    assert (await change(people.eve, people.eve, role="admin", status="active", name="Eva")).name == "Eva"
    await set_(database, User, people.dora.user_id, role="admin", status="active")
    assert (await change(people.eve, people.eve, role="user")).role == "user"


async def test_administrators_who_turn_on_each_other_at_once_leave_one(
    database: Database, people: People, change: Callable[..., Any]
) -> None:
    """Each does away with another one, in three ways, all at the same time: somebody is always left."""
    for _ in range(3):
        admins = [await add_person(database, f"admin-{new_id()}", role="admin") for _ in range(5)]
        await set_(database, User, people.eve.user_id, role="user")
        ways: list[Callable[[Actor, Actor], Awaitable[Any]]] = [
            lambda actor, of: change(actor, of, role="user"),
            lambda actor, of: change(actor, of, status="deactivated"),
            lambda actor, of: delete(database, actor, of.user_id),
        ]
        attempts = [ways[number % 3](admin, admins[(number + 1) % len(admins)]) for number, admin in enumerate(admins)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, BaseException)]
        assert [each.error_code for each in refused if isinstance(each, PunctualError)] == ["last_admin"], outcomes
        (left,) = await rows(database, User, User.role == "admin", User.status == "active")
        await set_(database, User, left.id, role="user")


async def test_holding_an_administrator_holds_all_of_them(database: Database, people: People) -> None:
    await set_(database, User, people.dora.user_id, role="admin")

    async def hold_one(user: Actor) -> None:
        async with database.write() as session:
            await hold(session, user_id=user.user_id)

    async with database.write() as session:
        await hold(session, user_id=people.dora.user_id)
        other = asyncio.create_task(hold_one(people.eve))
        await asyncio.wait([other], timeout=0.1)
        assert not other.done()
    await other


# -- deleting ------------------------------------------------------------------------------------------------


async def test_a_deleted_persons_tasks_stay_and_are_unassigned(database: Database, people: People) -> None:
    made = await add_task(database, people.bob, assignees=[people.bob])
    alone = await add_task(database, people.bob)
    assigned = await add_task(database, people.alice, assignees=[people.bob, people.carol])
    shared = await add_task(database, people.alice, shared_with=[(people.bob, "edit")])
    others = await add_task(database, people.alice, assignees=[people.carol])
    await add_reminder(database, made, people.bob, LATER)
    with capture_logs() as logs:
        await delete(database, people.eve, people.bob.user_id)
    assert await count(database, Task, Task.deleted_at.is_(None)) == 5
    assert await count(database, TaskAssignee, TaskAssignee.user_id == people.bob.user_id) == 0
    assert await count(database, TaskShare) == 0
    assert [await version(database, each) for each in (made, alone, assigned, shared, others)] == [2, 2, 2, 2, 1]
    bob = await one(database, User, User.id == people.bob.user_id)
    assert (bob.status, bob.name, bob.email) == ("erased", "Deleted user", f"erased-{people.bob.user_id}")
    run = await one(database, Run)
    assert (run.job, run.trigger, run.state) == ("erase_accounts", "event", "queued")
    assert {row.action for row in await rows(database, Activity)} == {"user_deleted", "account_erased"}
    (logged,) = [line for line in logs if line["event"] == "security.user_deleted"]
    assert logged["user_id"] == str(people.bob.user_id)
    for attempt in (delete(database, people.eve, people.bob.user_id), delete(database, people.eve, new_id())):
        with pytest.raises(NotFound):
            await attempt


async def test_people_who_share_everything_are_deleted_at_once(
    database: Database, settings: Settings, people: People
) -> None:
    gone = [people.alice, people.bob, people.carol]
    tasks = [await add_task(database, person, assignees=gone) for person in gone for _ in range(4)]

    async def complete(task_id: UUID) -> None:
        await database.retry_write(
            lambda session: change_task(
                session, actor=people.eve, task_id=task_id, changes={"status": "completed"}, now=LATER
            )
        )

    await asyncio.gather(
        *(delete(database, people.eve, person.user_id) for person in gone), *(complete(task_id) for task_id in tasks)
    )
    assert await count(database, User, User.status == "erased") == 3
    assert await count(database, TaskAssignee) == 0
    assert await count(database, Task, Task.status == "completed") == len(tasks)
    # Each is one change of the task, and none is lost.
    assert {await version(database, task_id) for task_id in tasks} == {5}


async def test_two_deletions_share_one_run(database: Database, people: People) -> None:
    await delete(database, people.eve, people.bob.user_id)
    await delete(database, people.eve, people.carol.user_id)
    assert await count(database, Run) == 1


# -- signing out, and the command line -----------------------------------------------------------------------


async def test_signing_out_everywhere_tells_its_owner(database: Database, settings: Settings, people: People) -> None:
    await add_rows(database, Session, [session_row(people.bob), session_row(people.carol)])
    for user_id, known in ((people.bob.user_id, True), (new_id(), False)):
        async with database.write() as session:
            options = {"actor": people.eve, "client": CLIENT, "settings": settings, "now": LATER}
            if not known:
                with pytest.raises(NotFound):
                    await administration.end_all_sessions(session, user_id=user_id, **options)  # type: ignore[arg-type]
                continue
            await administration.end_all_sessions(session, user_id=user_id, **options)  # type: ignore[arg-type]
            assert session.info[REVOKED] == {user_id}
    (ended,) = await rows(database, Session, Session.ended_at == LATER)
    assert ended.user_id == people.bob.user_id
    assert (await one(database, Email)).subject == "You were signed out everywhere"
    assert (await one(database, Activity)).action == "sessions_revoked"


async def test_an_administrator_made_on_the_command_line_is_written_down(
    database: Database, passwords: Passwords
) -> None:
    with capture_logs() as logs:
        made = await create_admin(
            database, email="root@example.com", name="Root", password=PASSWORD, passwords=passwords, now=NOW
        )
    activity = await one(database, Activity)
    assert (activity.actor_id, activity.action, activity.target_id) == (None, "user_created", made)
    assert activity.changes == {"role": [None, "admin"]}
    assert [line["event"] for line in logs] == ["security.user_created"]


async def test_after_a_password_from_the_command_line_no_former_link_works(
    database: Database, settings: Settings, passwords: Passwords, people: People
) -> None:
    """Nor is its owner kept out by what somebody else has tried."""
    bob = people.bob.user_id
    async with database.write() as session:
        links = [
            await make_token(session, user_id=bob, purpose=purpose, email="thief@example.org", now=NOW)
            for purpose in (Purpose.CHANGE_EMAIL, Purpose.RESET_PASSWORD)
        ]
        await add_failure(session, digest=address_digest("bob@example.com"), locked=False, now=NOW)
    await administration.reset_password(
        database, email="bob@example.com", password=PASSWORD, settings=settings, passwords=passwords, now=LATER
    )
    for link in links:
        async with database.write() as session:
            with pytest.raises(InvalidToken):
                await verify_email(session, token=link, settings=settings, now=LATER)
            with pytest.raises(InvalidToken):
                await find_reset(session, token=link, now=LATER)
    assert (await one(database, User, User.id == bob)).email == "bob@example.com"
    assert await count(database, LoginFailure) == 0


async def test_a_password_set_on_the_command_line_is_told_and_written_down(
    database: Database, settings: Settings, passwords: Passwords, people: People
) -> None:
    await add_rows(database, Session, [session_row(people.bob)])
    await administration.reset_password(
        database, email=" Bob@example.com", password=PASSWORD, settings=settings, passwords=passwords, now=LATER
    )
    assert (await one(database, Session)).ended_at == LATER
    assert (await one(database, Email)).subject == "Your password was reset"
    activity = await one(database, Activity)
    assert (activity.actor_id, activity.action, activity.target_id) == (None, "password_reset", people.bob.user_id)
    await set_(database, User, people.bob.user_id, status="erased")
    with pytest.raises(NotFound):
        await administration.reset_password(
            database, email="bob@example.com", password=PASSWORD, settings=settings, passwords=passwords, now=LATER
        )
