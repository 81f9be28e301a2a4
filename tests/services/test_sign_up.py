"""Sign-up: one account an address, and the e-mail that verifies it in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from models import Activity, Email, OneTimeToken, RefreshToken, Session, User
from scheduler.access import Actor, Role
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.administration import list_admins, reset_password
from scheduler.accounts.one_time_tokens import Purpose, make_token
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.sign_in import Tokens, refresh
from scheduler.accounts.sign_up import create_admin, sign_up
from scheduler.accounts.verification import address_of, resend_verification, verify_email
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, Invalid, InvalidToken, NotFound, Unauthenticated
from scheduler.settings import Settings
from tests.factories import NOW, add_person
from tests.services.at_once import AllAtOnce
from tests.services.conftest import CLIENT, PASSWORD, SignIn
from tests.services.entering import enter
from tests.services.mailed import mail, mails
from tests.services.stored import count, one, set_

SignUp = Callable[..., Awaitable[Tokens]]


@pytest.fixture
def signed_up(database: Database, settings: Settings, passwords: Passwords, access_tokens: AccessTokens) -> SignUp:
    async def signed_up(email: str = "alice@example.com", **changes: Any) -> Tokens:
        arguments: dict[str, Any] = {
            "passwords": passwords,
            "password": PASSWORD,
            "name": "Alice",
            "timezone": "Europe/Berlin",
            "client": CLIENT,
            "settings": settings,
            "now": NOW,
        }
        return await sign_up(database, email=email, access_tokens=access_tokens, **arguments | changes)

    return signed_up


async def test_an_account_its_session_and_its_email(
    database: Database, access_tokens: AccessTokens, settings: Settings, signed_up: SignUp
) -> None:
    tokens = await signed_up("  Alice@Example.COM ")
    user = await one(database, User)
    assert (user.email, user.role, user.status) == ("alice@example.com", "user", "active")
    assert (user.timezone, user.email_verified_at) == ("Europe/Berlin", None)
    assert user.password_hash.startswith("$argon2id$") and PASSWORD not in user.password_hash
    actor = await enter(database, tokens.access_token, access_tokens=access_tokens, now=NOW)
    signed_in = await one(database, Session)
    assert actor == Actor(user.id, Role.USER, signed_in.id, "Europe/Berlin", email_verified=False)
    assert (signed_in.ip, signed_in.user_agent) == CLIENT
    # Tokens are stored as digests.
    assert tokens.refresh_token.encode() not in (await one(database, RefreshToken)).digest
    email = await one(database, Email)
    assert (email.template, email.recipient, email.state) == ("verify_email", "alice@example.com", "pending")
    assert tokens.expires_in == 900


async def test_an_address_is_taken_whatever_its_case(database: Database, signed_up: SignUp) -> None:
    await signed_up("alice@example.com")
    with pytest.raises(Conflict) as caught:
        await signed_up("ALICE@example.com ")
    assert caught.value.error_code == "email_taken"
    assert await count(database, User) == await count(database, Email) == 1


async def test_of_many_at_once_one_gets_the_address(database: Database, signed_up: SignUp) -> None:
    passwords = AllAtOnce(8)
    results = await asyncio.gather(*(signed_up(passwords=passwords) for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 7 + ["Tokens"]
    assert {result.error_code for result in results if isinstance(result, Conflict)} == {"email_taken"}
    assert await count(database, User) == await count(database, Session) == await count(database, Email) == 1


async def test_all_that_is_wrong_is_told_at_once(database: Database, signed_up: SignUp) -> None:
    with pytest.raises(Invalid) as caught:
        await signed_up("not an address", password="short")
    assert [error.field for error in caught.value.errors] == ["/email", "/password"]
    with pytest.raises(Invalid) as caught:
        await signed_up("alice.has.a.long@example.com", password="ALICE.has.a.long@example.com")
    assert [error.field for error in caught.value.errors] == ["/password"]
    assert await count(database, User) == 0


async def test_closed(database: Database, settings: Settings, signed_up: SignUp) -> None:
    with pytest.raises(Forbidden) as caught:
        await signed_up(settings=settings.model_copy(update={"signup": "closed"}))
    assert caught.value.error_code == "signup_closed"
    assert await count(database, User) == 0


@pytest.mark.parametrize("address", ["Alice@Example.com", "alice@bücher.example", "ALICE@BÜCHER.example "])
async def test_one_signs_in_with_the_address_one_signed_up_with(
    signed_up: SignUp, sign_in: SignIn, address: str
) -> None:
    await signed_up(address)
    assert (await sign_in(address)).user.name == "Alice"


# -- admins --------------------------------------------------------------------------------------------------


async def test_an_admin_from_the_command_line(
    database: Database, passwords: Passwords, access_tokens: AccessTokens
) -> None:
    admin_id = await create_admin(
        database, email="Eve@Example.com", name=" Eve ", password=PASSWORD, passwords=passwords, now=NOW
    )
    await add_person(database, "alice")
    (admin,) = await list_admins(database)
    assert (admin.id, admin.email, admin.name, admin.email_verified_at) == (
        admin_id,
        "eve@example.com",
        "Eve",
        NOW,
    )
    assert await count(database, Email) == 0
    with pytest.raises(Conflict):
        await create_admin(database, email="eve@example.com", name="E", password=PASSWORD, passwords=passwords, now=NOW)
    for wrong in ({"name": " "}, {"name": "x" * 201}, {"name": "Eve\nX"}, {"email": "eve"}, {"password": "1234567890"}):
        arguments = {"email": "x@example.com", "name": "X", "password": PASSWORD} | wrong
        with pytest.raises(Invalid):
            await create_admin(database, **arguments, passwords=passwords, now=NOW)


async def test_a_reset_password_ends_every_session(
    database: Database, settings: Settings, passwords: Passwords, access_tokens: AccessTokens, signed_up: SignUp
) -> None:
    tokens = await signed_up()
    new = "another long password"
    await reset_password(
        database, email="Alice@example.com", password=new, passwords=passwords, settings=settings, now=NOW
    )
    for email, password, error in (
        ("alice@example.com", "short", Invalid),
        ("nobody@example.com", new, NotFound),
    ):
        with pytest.raises(error):
            await reset_password(
                database, email=email, password=password, passwords=passwords, settings=settings, now=NOW
            )
    with pytest.raises(Unauthenticated) as caught:
        await enter(database, tokens.access_token, access_tokens=access_tokens, now=NOW)
    assert caught.value.error_code == "token_revoked"
    with pytest.raises(Unauthenticated):
        await refresh(database, refresh_token=tokens.refresh_token, access_tokens=access_tokens, now=NOW)
    for password, right in ((PASSWORD, False), (new, True)):
        assert await passwords.matches((await one(database, User)).password_hash, password) is right


# -- verification --------------------------------------------------------------------------------------------


Use = Callable[..., Awaitable[str]]


@pytest.fixture
def use(database: Database, settings: Settings) -> Use:
    async def use(token: str, *, now: datetime = NOW) -> str:
        async def work(session: AsyncSession) -> str:
            return await verify_email(session, token=token, client=CLIENT, settings=settings, now=now)

        return await database.retry_write(work)

    return use


async def is_usable(database: Database, token: str, *, now: datetime = NOW) -> bool:
    async with database.read() as session:
        try:
            return await address_of(session, token=token, now=now) == "alice@example.com"
        except InvalidToken:
            return False


async def test_a_link_verifies_once(database: Database, signed_up: SignUp, use: Use) -> None:
    await signed_up()
    token = (await mail(database, "verify_email")).token
    assert token.encode() not in (await one(database, OneTimeToken)).digest
    assert await is_usable(database, token)
    assert not await is_usable(database, token + "x")
    assert not await is_usable(database, token, now=NOW + timedelta(hours=24))
    revoked: list[Any] = []

    async def told(user_ids: Any) -> None:
        revoked.extend(user_ids)

    database.tell_revoked = told
    assert await use(token, now=NOW + timedelta(hours=1)) == "alice@example.com"
    user = await one(database, User)
    assert user.email_verified_at == NOW + timedelta(hours=1)
    assert revoked == [user.id]  # who signed in unverified may do more from now on
    assert not await is_usable(database, token)
    with pytest.raises(InvalidToken):
        await use(token)


async def test_fifty_at_once_verify_once(database: Database, signed_up: SignUp, use: Use) -> None:
    await signed_up()
    token = (await mail(database, "verify_email")).token
    results = await asyncio.gather(*(use(token) for _ in range(50)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["InvalidToken"] * 49 + ["str"]
    assert await count(database, Activity, Activity.action == "email_verified") == 1


@pytest.mark.parametrize("case", ["late", "unknown", "refresh token", "other address", "other purpose"])
async def test_what_does_not_verify(database: Database, signed_up: SignUp, use: Use, case: str) -> None:
    tokens = await signed_up()
    token, now = (await mail(database, "verify_email")).token, NOW
    if case == "late":
        now += timedelta(hours=24)
    elif case == "unknown":
        token = "x" * 43
    elif case == "refresh token":
        token = tokens.refresh_token
    elif case == "other address":  # the link was for the former one
        await set_(database, User, tokens.user.id, email="new@example.com")
    else:
        purpose = Purpose.RESET_PASSWORD
        async with database.write() as session:
            token = await make_token(session, user_id=tokens.user.id, purpose=purpose, email=tokens.user.email, now=now)
    with pytest.raises(InvalidToken):
        await use(token, now=now)
    assert (await one(database, User)).email_verified_at is None


async def test_it_is_sent_again_until_verified(
    database: Database, settings: Settings, signed_up: SignUp, use: Use
) -> None:
    tokens = await signed_up()
    actor = Actor(tokens.user.id, Role.USER)

    async def resend(now: datetime = NOW) -> None:
        async with database.write() as session:
            await resend_verification(session, actor=actor, settings=settings, now=now)

    await resend(NOW + timedelta(minutes=5))
    first, second = await mails(database, "verify_email")
    assert second.token != first.token
    for _ in range(10):
        await resend(NOW + timedelta(minutes=6))
    assert await count(database, Email) == 10  # with the first: so many an hour, whoever asks
    await use(second.token)
    assert await use(first.token) == "alice@example.com"  # who follows both has made no mistake
    with pytest.raises(Conflict) as caught:
        await resend()
    assert caught.value.error_code == "already_verified"
