"""A forgotten password: the link that works once, for an hour; and invitations, which work alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models import Activity, ApiToken, Email, OneTimeToken, Run, Session, User
from scheduler.access import Actor
from scheduler.accounts.invitations import send_invitation
from scheduler.accounts.one_time_tokens import Purpose, make_token
from scheduler.accounts.password_reset import find_reset, request_password_reset, reset_password, send_password_reset
from scheduler.accounts.passwords import Passwords
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.errors import Invalid, InvalidToken
from scheduler.identifiers import new_id
from scheduler.outbox.claim import SECRET_TEMPLATES
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.settings import Settings
from tests.factories import NOW, add_person, add_rows
from tests.services.at_once import AllAtOnce
from tests.services.conftest import CLIENT, PASSWORD, SignIn, Worker
from tests.services.engine import put
from tests.services.mailed import arguments_of, events, mail, mails, perform_queued
from tests.services.stored import count, one, rows, set_, statements

NEW = "another long passphrase"
HOUR = timedelta(hours=1)
Forgot = Callable[..., Awaitable[list[Any]]]
Reset = Callable[..., Awaitable[None]]


@pytest.fixture
async def alice(database: Database, quick_hash: str) -> Actor:
    return await add_person(database, "alice", password_hash=quick_hash, timezone="Europe/Berlin")


@pytest.fixture
def forgot(database: Database, settings: Settings, encryption: Encryption) -> Forgot:
    """Asks for a link, and does what the job does. Returns what its runs gave."""

    async def forgot(address: str = "alice@example.com", *, now: datetime = NOW) -> list[Any]:
        async with database.write() as session:
            await request_password_reset(session, address=address, encryption=encryption, request_id="r", now=now)

        async def perform(run: RunningJob) -> dict[str, Any]:
            return await send_password_reset(database, run=run, settings=settings, clock=lambda: now)

        return await perform_queued(database, perform, now=now)

    return forgot


@pytest.fixture
def reset(database: Database, settings: Settings, passwords: Passwords) -> Reset:
    async def reset(token: str, password: str = NEW, *, now: datetime = NOW) -> None:
        await reset_password(
            database,
            token=token,
            password=password,
            client=CLIENT,
            passwords=passwords,
            settings=settings,
            now=now,
        )

    return reset


async def usable(database: Database, token: str, *, now: datetime = NOW) -> bool:
    async with database.read() as session:
        try:
            await find_reset(session, token=token, now=now)
        except InvalidToken:
            return False
        return True


# -- the link --------------------------------------------------------------------------------------------------


async def test_a_link_to_a_new_password(
    database: Database, alice: Actor, forgot: Forgot, reset: Reset, sign_in: SignIn, passwords: Passwords
) -> None:
    tokens = await sign_in()
    assert await forgot() == [{"sent": 1}]
    sent = await mail(database, "reset_password", to="alice@example.com")
    assert "1 hour" in sent.text
    (stored,) = await rows(database, OneTimeToken)
    assert sent.token.encode() not in stored.digest and stored.email == "alice@example.com"
    assert await usable(database, sent.token)
    assert await usable(database, sent.token)  # looking changes nothing

    await reset(sent.token, now=NOW + HOUR / 2)
    assert await passwords.matches((await one(database, User)).password_hash, NEW)
    assert await sign_in.refusal(password=PASSWORD) == "bad_credentials"
    assert (await sign_in(password=NEW)).user.id == alice.user_id
    ended = await one(database, Session, Session.id != (await _newest_session(database)))
    assert ended.ended_at == NOW + HOUR / 2 and tokens.refresh_token
    assert not await usable(database, sent.token, now=NOW + HOUR / 2)
    assert await events(database) == ["Your password was reset"]
    (told,) = await mails(database, "security")
    assert "Mon 2 Mar 2026, 13:30 (Europe/Berlin)" in told.text and CLIENT.ip in told.text
    done = await one(database, Activity, Activity.action == "password_reset")
    assert (done.actor_id, done.target_id, done.ip, done.changes) == (alice.user_id, alice.user_id, CLIENT.ip, {})


async def _newest_session(database: Database) -> Any:
    async with database.read() as session:
        return (await session.execute(select(Session.id).order_by(Session.id.desc()).limit(1))).scalar_one()


async def test_nobody_reads_the_address_in_the_runs(
    database: Database, alice: Actor, encryption: Encryption, forgot: Forgot
) -> None:
    for address in ("alice@example.com", "nobody@example.com"):
        async with database.write() as session:
            await request_password_reset(session, address=address, encryption=encryption, request_id=None, now=NOW)
    for arguments in await arguments_of(database):
        assert list(arguments) == ["sealed_address"] and "example" not in str(arguments)
    await forgot("mallory@example.com")
    assert await arguments_of(database) == [None, None, None]
    assert sorted(str(row.result) for row in await rows(database, Run)) == ["{'sent': 0}", "{'sent': 0}", "{'sent': 1}"]


async def test_who_is_sent_a_link(database: Database, alice: Actor, forgot: Forgot, reset: Reset) -> None:
    assert await forgot("nobody@example.com") == [{"sent": 0}]
    for status, sent in (("active", 1), ("deleting", 1), ("deactivated", 0), ("erased", 0)):
        await set_(database, User, alice.user_id, status=status)
        before = await count(database, Email, Email.template == "reset_password")
        assert await forgot() == [{"sent": sent}], status
        assert await count(database, Email, Email.template == "reset_password") == before + sent
        if sent:
            token = (await mail(database, "reset_password")).token
            await set_(database, User, alice.user_id, status="deactivated")
            assert not await usable(database, token)
            with pytest.raises(InvalidToken):
                await reset(token)
            await set_(database, User, alice.user_id, status=status)
            await reset(token)


async def test_asking_is_the_same_work_for_whoever_it_is(
    database: Database, alice: Actor, encryption: Encryption
) -> None:
    seen = []
    for address in ("alice@example.com", "nobody@example.com"):
        with statements(database) as made:
            async with database.write() as session:
                await request_password_reset(session, address=address, encryption=encryption, request_id=None, now=NOW)
        seen.append(list(made))
    assert seen[0] == seen[1] and sum("INSERT" in each for each in seen[0]) == 1


async def test_ten_an_hour(database: Database, alice: Actor, forgot: Forgot) -> None:
    sent = [(await forgot())[0]["sent"] for _ in range(12)]
    assert sent == [1] * 10 + [0] * 2
    assert await forgot(now=NOW + HOUR) == [{"sent": 1}]
    assert await count(database, Email) == 11
    # All of them work, as mail may come in any order.
    assert all([await usable(database, each.token, now=NOW) for each in await mails(database, "reset_password")])


async def test_a_run_with_no_address_that_we_can_read(database: Database, settings: Settings) -> None:
    for arguments in (None, {}, {"sealed_address": "alice@example.com"}, {"sealed_address": None}):
        await put(database, job="send_password_reset", arguments=arguments)

    async def perform(run: RunningJob) -> bool:
        with pytest.raises(JobFailed) as caught:
            await send_password_reset(database, run=run, settings=settings)
        return caught.value.permanent

    assert await perform_queued(database, perform) == [True] * 4


# -- using it --------------------------------------------------------------------------------------------------


async def test_links_that_do_not_work(database: Database, quick_hash: str, forgot: Forgot, reset: Reset) -> None:
    for case in ("late", "used", "unknown", "for the address", "of a former address", "voided"):
        name = case.replace(" ", "-")
        person = await add_person(database, name, password_hash=quick_hash)
        address, now = f"{name}@example.com", NOW
        await forgot(address)
        token = (await mail(database, "reset_password", to=address)).token
        if case == "late":
            now += HOUR
        elif case == "used":
            await reset(token)
        elif case == "unknown":
            token = "x" * 43
        elif case == "for the address":
            async with database.write() as session:
                purpose = Purpose.VERIFY_EMAIL
                token = await make_token(session, user_id=person.user_id, purpose=purpose, email=address, now=NOW)
        elif case == "of a former address":
            await set_(database, User, person.user_id, email="new@example.com")
        else:
            await forgot(address)
            newest = [each.token for each in await mails(database, "reset_password", to=address) if each.token != token]
            await reset(newest[0])
        before = await one(database, User, User.id == person.user_id)
        assert not await usable(database, token, now=now), case
        with pytest.raises(InvalidToken):
            await reset(token, "a third passphrase", now=now)
        assert await one(database, User, User.id == person.user_id) == before


async def test_a_password_that_is_not_taken_leaves_the_link_as_it_is(
    database: Database, alice: Actor, forgot: Forgot, reset: Reset
) -> None:
    await forgot()
    token = (await mail(database, "reset_password")).token
    for password in ("short", "x" * 129, "1234567890", "ALICE@example.com"):
        with pytest.raises(Invalid) as caught:
            await reset(token, password)
        assert [error.field for error in caught.value.errors] == ["/password"]
    await reset(token)


async def test_of_fifty_uses_at_once_exactly_one_wins(
    database: Database, alice: Actor, forgot: Forgot, settings: Settings
) -> None:
    await forgot()
    token = (await mail(database, "reset_password")).token
    passwords = AllAtOnce(50)

    async def use(password: str) -> None:
        await reset_password(
            database,
            token=token,
            password=password,
            client=CLIENT,
            passwords=passwords,
            settings=settings,
            now=NOW,
        )

    given = [f"passphrase number {number}" for number in range(50)]
    results = await asyncio.gather(*map(use, given), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["InvalidToken"] * 49 + ["NoneType"]
    winner = given[results.index(None)]
    assert await passwords.matches((await one(database, User)).password_hash, winner)
    assert await events(database) == ["Your password was reset"]
    assert await count(database, Activity, Activity.action == "password_reset") == 1


async def test_the_link_proves_the_address(
    database: Database, alice: Actor, forgot: Forgot, reset: Reset, settings: Settings
) -> None:
    await set_(database, User, alice.user_id, email_verified_at=None)
    await forgot()
    await reset((await mail(database, "reset_password")).token)
    assert (await one(database, User)).email_verified_at == NOW


@pytest.mark.parametrize("was_verified", [True, False])
async def test_who_first_proves_the_address_ends_what_was_made_before(
    database: Database, alice: Actor, forgot: Forgot, reset: Reset, was_verified: bool
) -> None:
    """Whoever signed up with it may have been somebody else, and have left a token to come back by."""
    await set_(database, User, alice.user_id, email_verified_at=NOW if was_verified else None)
    token = {
        "id": new_id(),
        "digest": b"x" * 32,
        "user_id": alice.user_id,
        "name": "x",
        "scopes": "tasks:write",
        "created_at": NOW,
    }
    await add_rows(database, ApiToken, [token])
    await forgot()
    await reset((await mail(database, "reset_password")).token)
    assert await count(database, ApiToken) == int(was_verified)


async def test_who_has_tried_in_vain_is_let_in(
    database: Database, alice: Actor, forgot: Forgot, reset: Reset, sign_in: SignIn
) -> None:
    """The ten failures that made them forget the password must not keep them out with the new one."""
    for _ in range(10):
        await sign_in.refusal(password="something else")
    assert await sign_in.refusal() == "bad_credentials"
    await forgot()
    await reset((await mail(database, "reset_password")).token)
    assert (await sign_in(password=NEW)).user.id == alice.user_id


async def test_two_factor_sign_in_stays_on(
    database: Database, alice: Actor, forgot: Forgot, reset: Reset, sign_in: SignIn, encryption: Encryption
) -> None:
    secret = encryption.encrypt("JBSWY3DPEHPK3PXP")
    await set_(database, User, alice.user_id, totp_secret=secret, totp_enabled_at=NOW)
    await forgot()
    await reset((await mail(database, "reset_password")).token)
    user = await one(database, User)
    assert (user.totp_secret, user.totp_enabled_at) == (secret, NOW)
    assert await sign_in.refusal(password=NEW) == "otp_required"


async def test_what_held_a_link_is_emptied_once_it_is_sent(
    database: Database, alice: Actor, forgot: Forgot, worker: Worker, settings: Settings
) -> None:
    await forgot()
    async with database.write() as session:
        user = await session.get(User, alice.user_id)
        assert user is not None
        await send_invitation(session, user=user, settings=settings, now=NOW)
    assert {each.template for each in await mails(database)} <= SECRET_TEMPLATES
    await worker.send()
    assert [(row.state, row.message) for row in await rows(database, Email)] == [("sent", b"")] * 2


# -- invitations -----------------------------------------------------------------------------------------------


async def test_an_invitation(
    database: Database, forgot: Forgot, reset: Reset, sign_in: SignIn, settings: Settings
) -> None:
    bob = await add_person(database, "bob", email_verified_at=None)

    async def invite(now: datetime = NOW) -> str:
        async with database.write() as session:
            user = await session.get(User, bob.user_id)
            assert user is not None
            await send_invitation(session, user=user, inviter_name="Eve <b>", settings=settings, now=now)
        return (await mail(database, "invitation", to="bob@example.com")).token

    first, second = await invite(), await invite()
    sent = await mail(database, "invitation")
    assert "Eve <b>" in sent.text and "Eve &lt;b&gt;" in sent.html
    assert "bob@example.com" in sent.text and "7 days" in sent.text
    assert not await usable(database, first)
    assert not await usable(database, second, now=NOW + timedelta(days=7))
    later = NOW + timedelta(days=7) - timedelta(seconds=1)
    await reset(second, now=later)
    row = await one(database, User)
    assert row.email_verified_at == later
    assert (await sign_in("bob@example.com", NEW)).user.id == bob.user_id
    assert await events(database) == []  # there was no password that somebody could have had
    assert await count(database, Activity, Activity.action == "password_set") == 1
    with pytest.raises(InvalidToken):
        await reset(second, now=later)


async def test_who_was_invited_may_also_have_forgotten(
    database: Database, forgot: Forgot, reset: Reset, sign_in: SignIn
) -> None:
    await add_person(database, "bob", email_verified_at=None)
    await forgot("bob@example.com")
    await reset((await mail(database, "reset_password")).token)
    await sign_in("bob@example.com", NEW)
