"""Another e-mail address: by the link that goes there, and nobody learns whose address it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from models import Activity, Email, OneTimeToken, User
from scheduler.access import Actor
from scheduler.accounts.email_change import request_email_change
from scheduler.accounts.one_time_tokens import Purpose, make_token
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.verification import address_of, verify_email
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, InvalidToken
from scheduler.settings import Settings
from tests.factories import NOW, add_person
from tests.services.conftest import CLIENT, PASSWORD, SignIn
from tests.services.mailed import events, mail, mails
from tests.services.stored import count, one, rows, set_, statements

OLD, NEW = "alice@example.com", "alice@example.org"
LATER = NOW + timedelta(minutes=5)
Ask = Callable[..., Awaitable[None]]
Use = Callable[..., Awaitable[str]]


@pytest.fixture
async def alice(database: Database, quick_hash: str) -> Actor:
    return await add_person(database, "alice", password_hash=quick_hash)


@pytest.fixture
def ask(database: Database, passwords: Passwords, settings: Settings, alice: Actor) -> Ask:
    async def ask(
        address: str = NEW, *, actor: Actor = alice, password: str = PASSWORD, settings: Settings = settings
    ) -> None:
        await request_email_change(
            database,
            actor=actor,
            address=address,
            password=password,
            client=CLIENT,
            passwords=passwords,
            settings=settings,
            now=NOW,
        )

    return ask


@pytest.fixture
def use(database: Database, settings: Settings) -> Use:
    async def use(token: str, *, now: datetime = LATER) -> str:
        async def work(session: AsyncSession) -> str:
            return await verify_email(session, token=token, client=CLIENT, settings=settings, now=now)

        return await database.retry_write(work)

    return use


async def test_the_link_makes_it_the_address(
    database: Database, alice: Actor, ask: Ask, use: Use, sign_in: SignIn
) -> None:
    async with database.write() as session:
        purpose = Purpose.RESET_PASSWORD
        await make_token(session, user_id=alice.user_id, purpose=purpose, email=OLD, now=NOW)
    await ask()
    assert (await one(database, User)).email == OLD  # until the link is used
    sent = await mail(database, "change_email", to=NEW)
    assert await events(database, to=OLD) == ["A new e-mail address was given for your account"]
    assert NEW not in (await mail(database, "security")).text  # whoever reads the old one's mail need not know it
    async with database.read() as session:
        assert await address_of(session, token=sent.token, now=LATER) == NEW
    assert await use(sent.token) == NEW
    user = await one(database, User)
    assert (user.email, user.email_verified_at, user.updated_at) == (NEW, LATER, LATER)
    assert (await events(database, to=OLD))[-1] == "Your e-mail address was changed"
    assert await events(database, to=NEW) == []
    done = await one(database, Activity, Activity.action == "email_changed")
    assert done.changes == {"email": [OLD, NEW]} and done.actor_id == alice.user_id
    # A link to a new password that went to the old address must not open the account.
    assert await count(database, OneTimeToken, OneTimeToken.used_at.is_(None)) == 0
    assert await sign_in.refusal(OLD) == "bad_credentials"
    await sign_in(NEW)
    with pytest.raises(InvalidToken):
        await use(sent.token)


async def test_a_taken_address_gets_no_link_and_nobody_is_told(database: Database, ask: Ask) -> None:
    await add_person(database, "bob")
    await ask("bob@example.com")
    assert await mails(database, to="bob@example.com") == []
    assert await mails(database, "change_email") == []
    assert len(await events(database, to=OLD)) == 1


async def test_asking_is_the_same_work_for_a_taken_address(
    database: Database, ask: Ask, quick_hash: str, passwords: Passwords
) -> None:
    await add_person(database, "bob")
    seen = []
    for address in ("bob@example.com", NEW):
        with statements(database) as made:
            await ask(address)
        seen.append(list(made))
    assert seen[0] == seen[1]
    assert len(await mails(database, "change_email")) == 1


async def test_only_the_newest_link_works(database: Database, ask: Ask, use: Use) -> None:
    await ask("typing.error@example.org")
    await ask()
    with pytest.raises(InvalidToken):
        await use((await mail(database, "change_email", to="typing.error@example.org")).token)
    await use((await mail(database, "change_email", to=NEW)).token)


async def test_what_asks_for_nothing(database: Database, alice: Actor, ask: Ask) -> None:
    with pytest.raises(Forbidden) as caught:
        await ask(password="not the password")
    assert caught.value.error_code == "bad_password"
    await ask(OLD)
    assert await count(database, Email) == await count(database, OneTimeToken) == 0
    for _ in range(12):
        await ask()
    assert len(await mails(database, "change_email")) == 10


async def test_a_deactivated_account_keeps_its_address(database: Database, alice: Actor, ask: Ask, use: Use) -> None:
    await ask()
    token = (await mail(database, "change_email", to=NEW)).token
    await set_(database, User, alice.user_id, status="deactivated")
    with pytest.raises(InvalidToken):
        await use(token)
    assert (await one(database, User)).email == OLD
    await set_(database, User, alice.user_id, status="active")
    assert await use(token) == NEW


async def test_of_two_who_confirm_one_address_one_gets_it(
    database: Database, alice: Actor, ask: Ask, use: Use, quick_hash: str
) -> None:
    people = [alice, *[await add_person(database, f"bob{n}", password_hash=quick_hash) for n in range(5)]]
    for person in people:
        await ask(actor=person)
    tokens = [each.token for each in await mails(database, "change_email", to=NEW)]
    results = await asyncio.gather(*(use(token) for token in tokens), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 5 + ["str"]
    assert {result.error_code for result in results if isinstance(result, Conflict)} == {"email_taken"}
    assert await count(database, User, User.email == NEW) == 1
    # Nothing of what was refused is left: their links, and their addresses, are as they were.
    assert await count(database, OneTimeToken, OneTimeToken.used_at.is_(None)) == 5


async def test_of_many_uses_at_once_one_counts(database: Database, ask: Ask, use: Use) -> None:
    await ask()
    token = (await mail(database, "change_email")).token
    results = await asyncio.gather(*(use(token) for _ in range(20)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["InvalidToken"] * 19 + ["str"]
    assert await count(database, Activity, Activity.action == "email_changed") == 1


async def test_an_address_that_is_not_verified_is_not_written_to(
    database: Database, alice: Actor, ask: Ask, settings: Settings
) -> None:
    await set_(database, User, alice.user_id, email_verified_at=None)
    await ask(settings=settings.model_copy(update={"require_verified_email": True}))
    assert [(row.recipient, row.template) for row in await rows(database, Email)] == [(NEW, "change_email")]
    await ask(settings=settings)
    assert len(await events(database, to=OLD)) == 1
