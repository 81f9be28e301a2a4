"""Sign-in: login, refresh with rotation, logout, and who a request comes from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from models import Activity, LoginFailure, RefreshToken, Session, User
from scheduler.access import Actor, Role
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.client import Client
from scheduler.accounts.login_lock import MOST_FAILURES, address_digest
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.profile import change_profile, get_profile
from scheduler.accounts.sign_in import (
    SESSION_LIFETIME,
    Tokens,
    open_session,
    refresh,
    sign_out,
)
from scheduler.database import REVOKED, Database
from scheduler.errors import Forbidden, Unauthenticated
from scheduler.identifiers import new_id
from tests.factories import NOW, People, add_person, add_rows
from tests.services.conftest import CLIENT, PASSWORD, SignIn
from tests.services.entering import enter
from tests.services.stored import count, one, rows, set_, statements


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
        return await enter(self.database, token, access_tokens=self.access_tokens, now=now)

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


async def test_login(database: Database, sign_in: SignIn, password_hash: str, door: Door) -> None:
    alice = await add_person(database, "alice", password_hash=password_hash)
    await add_person(database, "bob")  # was invited, and has no password yet
    tokens = await sign_in(" Alice@Example.com ", client=Client("::1", "x" * 600))
    assert (await door.enter(tokens.access_token)).user_id == alice.user_id
    opened = await one(database, Session)
    assert (opened.ip, len(opened.user_agent)) == ("::1", 500)
    signed_in = await one(database, Activity)
    assert (signed_in.action, signed_in.actor_id, signed_in.target_type, signed_in.target_id) == (
        "signed_in",
        alice.user_id,
        "session",
        opened.id,
    )
    assert (signed_in.at, signed_in.ip, len(signed_in.user_agent)) == (NOW, "::1", 500)
    for email, password in (
        ("alice@example.com", PASSWORD + "!"),
        ("nobody@example.com", PASSWORD),
        ("bob@example.com", "nobody has this password"),
        ("", ""),
    ):
        assert await sign_in.refusal(email, password) == "bad_credentials"
    assert await count(database, Session) == await count(database, Activity) == 1


async def test_whether_an_account_is_there_is_told_only_to_who_knows_its_password(
    database: Database, sign_in: SignIn, quick_hash: str
) -> None:
    alice = await add_person(database, "alice", status="deactivated", password_hash=quick_hash)
    assert await sign_in.refusal() == "deactivated"
    assert await sign_in.refusal(password="wrong password") == "bad_credentials"
    await set_(database, User, alice.user_id, status="erased")
    assert await sign_in.refusal() == "bad_credentials"
    assert await count(database, Session) == 0


async def test_what_fails_costs_the_same_whatever_is_wrong(
    database: Database, sign_in: SignIn, quick_hash: str
) -> None:
    await add_person(database, "alice", password_hash=quick_hash)
    await add_person(database, "bob")
    costs = []
    for email in ("alice@example.com", "bob@example.com", "nobody@example.com", "no address", "x" * 1000):
        for locked in (False, True):
            if locked:
                failures = [
                    {"id": new_id(), "address_digest": address_digest(email), "at": NOW} for _ in range(MOST_FAILURES)
                ]
                await add_rows(database, LoginFailure, failures)
            with statements(database) as seen:
                assert await sign_in.refusal(email, "wrong") == "bad_credentials"
            costs.append(tuple(seen))
    with statements(database) as seen:
        assert await sign_in.refusal() == "bad_credentials"  # the right one, while it is locked
    costs.append(tuple(seen))
    assert len(set(costs)) == 1, set(costs)
    assert len(costs[0]) > 4


async def test_a_hash_with_old_parameters_is_made_anew(
    database: Database, sign_in: SignIn, quick_hash: str, passwords: Passwords
) -> None:
    alice = await add_person(database, "alice", password_hash=quick_hash)
    assert await sign_in.refusal(password="wrong") == "bad_credentials"
    assert (await one(database, User)).password_hash == quick_hash
    await sign_in()
    stored = (await one(database, User, User.id == alice.user_id)).password_hash
    assert not passwords.needs_rehash(stored)
    assert await passwords.matches(stored, PASSWORD)


@pytest.mark.heavy(on="mariadb")
async def test_whoever_else_signs_in_just_then_is_let_in_too(
    database: Database, sign_in: SignIn, quick_hash: str
) -> None:
    """One hash is checked while another sign-in of theirs puts a new one in its place."""
    await add_person(database, "alice", password_hash=quick_hash)

    async def later(number: int) -> Tokens:
        await asyncio.sleep(number * 0.012)
        return await sign_in()

    assert len(await asyncio.gather(*map(later, range(8)))) == 8
    assert await count(database, LoginFailure) == 0


class Slow(Passwords):
    """Something happens while a password is checked."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(threads=1)
        self.meanwhile = meanwhile

    async def matches(self, stored: str | None, password: str) -> bool:
        right = await super().matches(stored, password)
        await self.meanwhile()
        return right


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"password_hash": "another"}, "bad_credentials"),
        ({"password_hash": None}, "bad_credentials"),
        ({"email": "another@example.com"}, "bad_credentials"),
        ({"status": "erased"}, "bad_credentials"),
        ({"status": "deactivated"}, "deactivated"),
    ],
)
async def test_what_changes_while_the_password_is_checked_counts(
    database: Database, sign_in: SignIn, quick_hash: str, change: dict[str, Any], code: str
) -> None:
    """A password that was reset meanwhile, say: its reset has ended all sessions, and there must be none after it."""
    alice = await add_person(database, "alice", password_hash=quick_hash)
    sign_in.passwords = Slow(lambda: set_(database, User, alice.user_id, **change))
    assert await sign_in.refusal() == code
    assert await count(database, Session) == 0
    sign_in.passwords.close()


async def test_signing_in_takes_a_deletion_back(database: Database, sign_in: SignIn, password_hash: str) -> None:
    asked = NOW - timedelta(days=13)
    alice = await add_person(
        database, "alice", status="deleting", deletion_requested_at=asked, password_hash=password_hash
    )
    assert await sign_in.refusal(password="wrong") == "bad_credentials"
    assert (await one(database, User)).deletion_requested_at == asked
    tokens = await sign_in()
    assert (tokens.user.status, tokens.user.updated_at) == ("active", NOW)
    stored = await one(database, User)
    assert (stored.status, stored.deletion_requested_at, stored.updated_at) == ("active", None, NOW)
    taken_back = await one(database, Activity, Activity.action == "deletion_taken_back")
    assert (taken_back.actor_id, taken_back.target_id) == (alice.user_id, alice.user_id)
    assert taken_back.changes == {"status": ["deleting", "active"]}
    again = await sign_in()
    assert again.user.status == "active"
    assert await count(database, Activity, Activity.action == "deletion_taken_back") == 1


async def test_the_log_says_who_and_why_and_no_secrets(database: Database, sign_in: SignIn, quick_hash: str) -> None:
    alice = await add_person(database, "alice", password_hash=quick_hash)
    with structlog.testing.capture_logs() as logged:
        for email in ("alice@example.com", "nobody@example.com"):
            await sign_in.refusal(email, "wrong " + PASSWORD)
        await sign_in()
    assert [(each["event"], each.get("user_id"), each.get("reason"), each["ip"]) for each in logged] == [
        ("security.sign_in_failed", str(alice.user_id), "password", CLIENT.ip),
        ("security.sign_in_failed", None, "address", CLIENT.ip),
        ("security.signed_in", str(alice.user_id), None, CLIENT.ip),
    ]
    assert PASSWORD not in str(logged) and "example.com" not in str(logged)


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


async def test_of_somebody_deactivated_it_says_so_and_keeps(database: Database, door: Door, tokens: Tokens) -> None:
    await set_(database, User, tokens.user.id, status="deactivated")
    with pytest.raises(Forbidden) as caught:
        await door.refresh(tokens.refresh_token)
    assert caught.value.error_code == "deactivated"
    await set_(database, User, tokens.user.id, status="active")
    await door.refresh(tokens.refresh_token)


async def test_other_sessions_go_on(database: Database, door: Door, tokens: Tokens) -> None:
    async with database.write() as session:
        other = await open_session(session, user=tokens.user, client=CLIENT, access_tokens=door.access_tokens, now=NOW)
    await door.refresh(tokens.refresh_token)
    assert await door.refusal(tokens.refresh_token) == "token_revoked"
    assert (await door.enter(other.access_token)).user_id == tokens.user.id
    await door.refresh(other.refresh_token)


@pytest.mark.parametrize("at_once", [2, 50])
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
        await sign_out(session, actor=actor, client=CLIENT, now=NOW)
        assert session.info[REVOKED] == {actor.user_id}
    signed_out = await one(database, Activity, Activity.action == "signed_out")
    assert (signed_out.actor_id, signed_out.target_id) == (actor.user_id, actor.session_id)
    assert await door.refusal(tokens.access_token) == "token_revoked"
    assert await door.refusal(tokens.refresh_token) == "token_revoked"
    async with database.write() as session:
        await sign_out(session, actor=actor, client=CLIENT, now=NOW + timedelta(hours=1))
    assert (await one(database, Session)).ended_at == NOW


async def test_whoever_is_deactivated_is_out_at_once(database: Database, door: Door, tokens: Tokens) -> None:
    await set_(database, User, tokens.user.id, status="deactivated")
    assert await door.refusal(tokens.access_token) == "deactivated"
    assert await door.refusal(tokens.refresh_token) == "deactivated"


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
