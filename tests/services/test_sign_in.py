"""Sign-in: login, refresh with rotation, logout, and who a request comes from."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from models import RefreshToken, Session, User
from scheduler.access import Actor, Role
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.profile import change_profile, get_profile
from scheduler.accounts.sign_in import (
    SESSION_LIFETIME,
    Tokens,
    authenticate,
    end_session,
    login,
    open_session,
    refresh,
)
from scheduler.database import Database
from scheduler.errors import Forbidden, Unauthenticated
from scheduler.identifiers import new_id
from tests.factories import NOW, People, add_person
from tests.services.stored import count, one, rows, set_

PASSWORD = "correct horse battery"
CLIENT = Client("192.0.2.1", "a browser")


@pytest.fixture
async def tokens(database: Database, access_tokens: AccessTokens) -> Tokens:
    """Alice is signed in."""
    alice = await add_person(database, "alice", timezone="Asia/Tokyo")
    async with database.write() as session:
        user = await get_profile(session, actor=alice)
        return await open_session(session, user=user, client=CLIENT, access_tokens=access_tokens, now=NOW)


class Door:
    """The service's door for somebody who holds tokens."""

    def __init__(self, database: Database, access_tokens: AccessTokens) -> None:
        self.database, self.access_tokens = database, access_tokens

    async def refresh(self, token: str, *, now: datetime = NOW) -> Tokens:
        return await refresh(self.database, refresh_token=token, access_tokens=self.access_tokens, now=now)

    async def enter(self, token: str, *, now: datetime = NOW) -> Actor:
        async with self.database.read() as session:
            return await authenticate(session, token=token, access_tokens=self.access_tokens, now=now)

    async def refusal(self, token: str, *, now: datetime = NOW) -> str:
        """The code with which a refresh token, or else an access token, is refused."""
        with pytest.raises((Unauthenticated, Forbidden)) as caught:
            await (self.refresh(token, now=now) if token.startswith("pun_r_") else self.enter(token, now=now))
        assert isinstance(caught.value, Unauthenticated | Forbidden)
        return caught.value.error_code


@pytest.fixture
def door(database: Database, access_tokens: AccessTokens) -> Door:
    return Door(database, access_tokens)


# -- login ---------------------------------------------------------------------------------------------------


async def test_login(database: Database, passwords: Passwords, access_tokens: AccessTokens, door: Door) -> None:
    alice = await add_person(database, "alice", password_hash=await passwords.hash(PASSWORD))
    await add_person(database, "bob")  # was invited, and has no password yet

    async def sign_in(email: str, password: str = PASSWORD) -> Tokens:
        return await login(
            database,
            email=email,
            password=password,
            client=Client("::1", "x" * 600),
            passwords=passwords,
            access_tokens=access_tokens,
            now=NOW,
        )

    tokens = await sign_in(" Alice@Example.com ")
    assert (await door.enter(tokens.access_token)).user_id == alice.user_id
    assert len((await one(database, Session)).user_agent) == 500
    for email, password in (
        ("alice@example.com", PASSWORD + "!"),
        ("nobody@example.com", PASSWORD),
        ("bob@example.com", "nobody has this password"),
        ("", ""),
    ):
        with pytest.raises(Unauthenticated) as caught:
            await sign_in(email, password)
        assert caught.value.error_code == "bad_credentials"
    assert await count(database, Session) == 1
    await set_(database, User, alice.user_id, status="deactivated")
    with pytest.raises(Forbidden) as refused:
        await sign_in("alice@example.com")
    assert refused.value.error_code == "deactivated"
    # Whether an account is there is told only to who knows its password.
    with pytest.raises(Unauthenticated):
        await sign_in("alice@example.com", "wrong password")


async def test_a_hash_with_old_parameters_is_made_anew(
    database: Database, passwords: Passwords, access_tokens: AccessTokens
) -> None:
    from argon2 import PasswordHasher

    old = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    alice = await add_person(database, "alice", password_hash=old)
    await login(
        database,
        email="alice@example.com",
        password=PASSWORD,
        client=CLIENT,
        passwords=passwords,
        access_tokens=access_tokens,
        now=NOW,
    )
    stored = (await one(database, User, User.id == alice.user_id)).password_hash
    assert not passwords.needs_rehash(stored)
    assert await passwords.matches(stored, PASSWORD)


# -- refresh -------------------------------------------------------------------------------------------------


async def test_refresh_rotates(database: Database, door: Door, tokens: Tokens) -> None:
    later = NOW + timedelta(days=10)
    fresh = await door.refresh(tokens.refresh_token, now=later)
    assert fresh.refresh_token != tokens.refresh_token and fresh.access_token != tokens.access_token
    assert (await one(database, Session)).last_used_at == later
    actor = await door.enter(fresh.access_token, now=later)
    assert (actor.role, actor.timezone, actor.email_verified) == (Role.USER, "Asia/Tokyo", True)
    assert actor.session_id == (await one(database, Session)).id
    await door.refresh(fresh.refresh_token, now=later)


async def test_a_used_one_ends_the_whole_session(database: Database, door: Door, tokens: Tokens) -> None:
    fresh = await door.refresh(tokens.refresh_token)
    assert await door.refusal(tokens.refresh_token) == "token_revoked"
    # Who stole it has nothing, and neither has its owner until they sign in again.
    assert await door.refusal(fresh.refresh_token) == "token_revoked"
    assert await door.refusal(fresh.access_token) == "token_revoked"
    assert (await one(database, Session)).ended_at == NOW


async def test_other_sessions_go_on(database: Database, door: Door, tokens: Tokens) -> None:
    async with database.write() as session:
        other = await open_session(session, user=tokens.user, client=CLIENT, access_tokens=door.access_tokens, now=NOW)
    await door.refresh(tokens.refresh_token)
    assert await door.refusal(tokens.refresh_token) == "token_revoked"
    assert (await door.enter(other.access_token)).user_id == tokens.user.id
    await door.refresh(other.refresh_token)


@pytest.mark.parametrize("at_once", [2, 20])
async def test_of_refreshes_at_once_exactly_one_wins(
    database: Database, door: Door, tokens: Tokens, at_once: int
) -> None:
    results = await asyncio.gather(
        *(door.refresh(tokens.refresh_token) for _ in range(at_once)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Tokens"] + ["Unauthenticated"] * (at_once - 1)
    assert await count(database, RefreshToken) == 2
    assert (await one(database, Session)).ended_at is not None  # the token was used twice


@pytest.mark.parametrize("token", ["", "x", "pun_r_" + "x" * 43, "é" * 1000, "pun_r_\x00"])
async def test_one_we_never_gave(database: Database, access_tokens: AccessTokens, token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await refresh(database, refresh_token=token, access_tokens=access_tokens, now=NOW)
    assert caught.value.error_code == "unauthenticated"


async def test_a_session_ends_thirty_days_after_its_last_use(door: Door, tokens: Tokens) -> None:
    first = NOW + SESSION_LIFETIME - timedelta(seconds=1)
    fresh = await door.refresh(tokens.refresh_token, now=first)
    fresh = await door.refresh(fresh.refresh_token, now=first + SESSION_LIFETIME - timedelta(seconds=1))
    late = first + 2 * SESSION_LIFETIME
    assert await door.refusal(fresh.refresh_token, now=late) == "token_revoked"
    assert await door.refusal(fresh.refresh_token, now=first) == "token_revoked"  # ended for good


# -- the end -------------------------------------------------------------------------------------------------


async def test_after_logout_nothing_works(database: Database, door: Door, tokens: Tokens) -> None:
    actor = await door.enter(tokens.access_token)
    assert actor.session_id is not None
    async with database.write() as session:
        await end_session(session, session_id=actor.session_id, now=NOW)
    assert await door.refusal(tokens.access_token) == "token_revoked"
    assert await door.refusal(tokens.refresh_token) == "token_revoked"
    async with database.write() as session:
        await end_session(session, session_id=actor.session_id, now=NOW + timedelta(hours=1))
    assert (await one(database, Session)).ended_at == NOW


async def test_whoever_is_deactivated_is_out_at_once(database: Database, door: Door, tokens: Tokens) -> None:
    await set_(database, User, tokens.user.id, status="deactivated")
    assert await door.refusal(tokens.access_token) == "deactivated"
    assert await door.refusal(tokens.refresh_token) == "token_revoked"


async def test_a_role_is_that_of_now(database: Database, door: Door, tokens: Tokens) -> None:
    await set_(database, User, tokens.user.id, role="manager")
    assert (await door.enter(tokens.access_token)).role is Role.MANAGER


async def test_whose_session_it_is_counts(database: Database, door: Door, tokens: Tokens) -> None:
    bob = await add_person(database, "bob")
    session_id = (await one(database, Session)).id
    for user_id, session in ((bob.user_id, session_id), (tokens.user.id, new_id())):
        token = door.access_tokens.issue(user_id=user_id, session_id=session, now=NOW)
        assert await door.refusal(token) == "token_revoked"
    assert await door.refusal(tokens.access_token, now=NOW + timedelta(hours=1)) == "token_expired"


# -- one's profile -------------------------------------------------------------------------------------------


async def test_a_profile_changes_where_it_differs(database: Database, people: People) -> None:
    alice = people.alice
    await set_(database, User, alice.user_id, phone="+4915112345678", phone_verified_at=NOW)
    later = NOW + timedelta(hours=1)

    async def change(**changes: str | None) -> User:
        async with database.write() as session:
            return await change_profile(session, actor=alice, changes=changes, now=later)

    await change(name="Alice", bio="", phone="+4915112345678")  # as it is
    stored = await one(database, User, User.id == alice.user_id)
    assert (stored.updated_at, stored.phone_verified_at) == (NOW, NOW)
    answer = await change(name="Alice 🌻", timezone="Pacific/Apia", phone="+4915187654321", bio="שלום")
    stored = await one(database, User, User.id == alice.user_id)
    assert (stored.name, stored.timezone, stored.bio) == ("Alice 🌻", "Pacific/Apia", "שלום")
    assert (stored.phone, stored.phone_verified_at, stored.updated_at) == ("+4915187654321", None, later)
    assert (answer.name, answer.phone, answer.phone_verified_at, answer.updated_at) == (
        stored.name,
        stored.phone,
        None,
        later,
    )
    await change(phone=None)
    assert (await one(database, User, User.id == alice.user_id)).phone is None
    others = await rows(database, User, User.id != alice.user_id)
    assert {other.timezone for other in others} == {"UTC"}
