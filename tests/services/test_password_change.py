"""Changing one's password: with the present one, and other sessions end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from models import Activity, OneTimeToken, Session, User
from scheduler.access import Actor
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.one_time_tokens import Purpose, make_token
from scheduler.accounts.password_change import change_password
from scheduler.accounts.passwords import Passwords
from scheduler.database import Database
from scheduler.errors import Forbidden, Invalid
from scheduler.settings import Settings
from tests.factories import NOW, add_person
from tests.services.at_once import AllAtOnce
from tests.services.conftest import CLIENT, PASSWORD, SignIn
from tests.services.engine import logged
from tests.services.mailed import events, mail
from tests.services.stored import count, one, rows

NEW = "another long passphrase"
LATER = NOW + timedelta(minutes=5)
Change = Callable[..., Awaitable[None]]


@pytest.fixture
async def alice(database: Database, sign_in: SignIn, quick_hash: str, access_tokens: AccessTokens) -> Actor:
    """Signed in."""
    person = await add_person(database, "alice", password_hash=quick_hash)
    tokens = await sign_in()
    session_id = access_tokens.verify(tokens.access_token, now=NOW).session_id
    return Actor(person.user_id, person.role, session_id)


@pytest.fixture
def change(database: Database, alice: Actor, passwords: Passwords, settings: Settings) -> Change:
    async def change(password: str = NEW, *, current: str = PASSWORD) -> None:
        await change_password(
            database,
            actor=alice,
            current_password=current,
            password=password,
            client=CLIENT,
            passwords=passwords,
            settings=settings,
            now=LATER,
        )

    return change


@pytest.mark.heavy(on="mariadb")
async def test_a_new_password_ends_other_sessions(
    database: Database, alice: Actor, change: Change, sign_in: SignIn, passwords: Passwords
) -> None:
    other = await sign_in()
    async with database.write() as session:
        for purpose in Purpose:
            await make_token(session, user_id=alice.user_id, purpose=purpose, email="alice@example.com", now=NOW)
    revoked: list[object] = []

    async def told(user_ids: object) -> None:
        revoked.append(user_ids)

    database.tell_revoked = told
    await change()
    assert revoked == [{alice.user_id}]
    stored = await one(database, User)
    assert await passwords.matches(stored.password_hash, NEW) and stored.updated_at == LATER
    ended = {row.id: row.ended_at for row in await rows(database, Session)}
    assert ended.pop(alice.session_id) is None
    assert list(ended.values()) == [LATER] and other.refresh_token
    # Links that were on their way go with it; the address may still be verified.
    works = await rows(database, OneTimeToken, OneTimeToken.used_at.is_(None))
    assert [row.purpose for row in works] == ["verify_email"]
    assert await events(database) == ["Your password was changed"]
    assert "forgot password" in (await mail(database, "security")).text
    done = await one(database, Activity, Activity.action == "password_changed")
    assert (done.actor_id, done.ip, done.user_agent) == (alice.user_id, CLIENT.ip, CLIENT.user_agent)
    assert await sign_in.refusal() == "bad_credentials"
    await sign_in(password=NEW)


async def test_operators_see_it_and_no_secret(alice: Actor, change: Change) -> None:
    with logged() as lines:
        with pytest.raises(Forbidden):
            await change(current="not the password")
        with pytest.raises(Invalid):
            await change("1234567890")
        assert lines.events("security.password_changed") == []
        await change()
        (line,) = lines.events("security.password_changed")
        written = str(lines.all())
    assert line["user_id"] == str(alice.user_id) and line["logger"] == "security"
    for secret in (PASSWORD, NEW, "not the password", "alice@example.com"):
        assert secret not in written


async def test_what_is_refused_changes_nothing(database: Database, change: Change) -> None:
    before = await one(database, User)
    with pytest.raises(Forbidden) as caught:
        await change(current="not the password")
    assert caught.value.error_code == "bad_password"
    for password in ("short", "x" * 129, "1234567890", "alice@EXAMPLE.com"):
        with pytest.raises(Invalid) as invalid:
            await change(password)
        assert [error.field for error in invalid.value.errors] == ["/password"]
    assert await one(database, User) == before
    assert await events(database) == []
    assert await count(database, Session, Session.ended_at.is_not(None)) == 0


async def test_of_changes_at_once_one_wins(database: Database, alice: Actor, settings: Settings) -> None:
    given = [f"passphrase number {number}" for number in range(8)]
    passwords = AllAtOnce(8)

    async def change(password: str) -> None:
        await change_password(
            database,
            actor=alice,
            current_password=PASSWORD,
            password=password,
            client=CLIENT,
            passwords=passwords,
            settings=settings,
            now=LATER,
        )

    results = await asyncio.gather(*map(change, given), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Forbidden"] * 7 + ["NoneType"]
    assert await passwords.matches((await one(database, User)).password_hash, given[results.index(None)])
    assert await events(database) == ["Your password was changed"]
