"""Sign-up: one account an address, and the e-mail that verifies it in the same transaction."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from models import Email, OneTimeToken, RefreshToken, Session, User
from scheduler.access import Actor, Role
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.administration import list_admins, reset_password
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.sign_in import Tokens, authenticate, login, refresh
from scheduler.accounts.sign_up import create_admin, sign_up
from scheduler.accounts.verification import is_usable, resend_verification, verify_email
from scheduler.database import Database
from scheduler.errors import Conflict, Forbidden, Invalid, InvalidToken, NotFound, Unauthenticated
from scheduler.settings import Settings
from tests.factories import NOW, add_person
from tests.services.stored import count, one, rows, set_

PASSWORD = "correct horse battery"
CLIENT = Client("192.0.2.1", "a browser")
SignUp = Callable[..., Awaitable[Tokens]]


@pytest.fixture
def signed_up(database: Database, settings: Settings, passwords: Passwords, access_tokens: AccessTokens) -> SignUp:
    async def signed_up(email: str = "alice@example.com", **changes: Any) -> Tokens:
        arguments: dict[str, Any] = {
            "password": PASSWORD,
            "name": "Alice",
            "timezone": "Europe/Berlin",
            "client": CLIENT,
            "settings": settings,
            "now": NOW,
        }
        return await sign_up(
            database, email=email, passwords=passwords, access_tokens=access_tokens, **arguments | changes
        )

    return signed_up


async def test_an_account_its_session_and_its_email(
    database: Database, access_tokens: AccessTokens, settings: Settings, signed_up: SignUp
) -> None:
    tokens = await signed_up("  Alice@Example.COM ")
    user = await one(database, User)
    assert (user.email, user.role, user.status) == ("alice@example.com", "user", "active")
    assert (user.timezone, user.email_verified_at) == ("Europe/Berlin", None)
    assert user.password_hash.startswith("$argon2id$") and PASSWORD not in user.password_hash
    async with database.read() as session:
        actor = await authenticate(session, token=tokens.access_token, access_tokens=access_tokens, now=NOW)
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
    results = await asyncio.gather(*(signed_up() for _ in range(8)), return_exceptions=True)
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
    database: Database, passwords: Passwords, access_tokens: AccessTokens, signed_up: SignUp, address: str
) -> None:
    await signed_up(address)
    tokens = await login(
        database,
        email=address,
        password=PASSWORD,
        client=CLIENT,
        passwords=passwords,
        access_tokens=access_tokens,
        now=NOW,
    )
    assert tokens.user.name == "Alice"


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
    database: Database, passwords: Passwords, access_tokens: AccessTokens, signed_up: SignUp
) -> None:
    tokens = await signed_up()
    new = "another long password"
    await reset_password(database, email="Alice@example.com", password=new, passwords=passwords, now=NOW)
    for email, password, error in (
        ("alice@example.com", "short", Invalid),
        ("nobody@example.com", new, NotFound),
    ):
        with pytest.raises(error):
            await reset_password(database, email=email, password=password, passwords=passwords, now=NOW)
    async with database.read() as session:
        with pytest.raises(Unauthenticated) as caught:
            await authenticate(session, token=tokens.access_token, access_tokens=access_tokens, now=NOW)
    assert caught.value.error_code == "token_revoked"
    with pytest.raises(Unauthenticated):
        await refresh(database, refresh_token=tokens.refresh_token, access_tokens=access_tokens, now=NOW)
    for password, right in ((PASSWORD, False), (new, True)):
        assert await passwords.matches((await one(database, User)).password_hash, password) is right


# -- verification --------------------------------------------------------------------------------------------


async def token_in_mail(database: Database) -> str:
    email = (await rows(database, Email, Email.template == "verify_email"))[-1]
    found = re.search(rb"/act/verify\?token=(?:3D)?([\w-]+)", email.message.replace(b"=\r\n", b""))
    assert found is not None
    return found[1].decode().removeprefix("3D")


async def test_a_link_verifies_once(database: Database, signed_up: SignUp) -> None:
    await signed_up()
    token = await token_in_mail(database)
    assert token.encode() not in (await one(database, OneTimeToken)).digest
    async with database.read() as session:
        assert await is_usable(session, token=token, now=NOW)
        assert not await is_usable(session, token=token + "x", now=NOW)
        assert not await is_usable(session, token=token, now=NOW + timedelta(hours=24))
    async with database.write() as session:
        await verify_email(session, token=token, now=NOW + timedelta(hours=1))
    assert (await one(database, User)).email_verified_at == NOW + timedelta(hours=1)
    async with database.read() as session:
        assert not await is_usable(session, token=token, now=NOW)
    with pytest.raises(InvalidToken):
        async with database.write() as session:
            await verify_email(session, token=token, now=NOW)


async def test_fifty_at_once_verify_once(database: Database, signed_up: SignUp) -> None:
    await signed_up()
    token = await token_in_mail(database)

    async def use() -> None:
        async with database.write() as session:
            await verify_email(session, token=token, now=NOW)

    results = await asyncio.gather(*(use() for _ in range(50)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["InvalidToken"] * 49 + ["NoneType"]


@pytest.mark.parametrize("case", ["late", "unknown", "refresh token", "other address"])
async def test_what_does_not_verify(database: Database, signed_up: SignUp, case: str) -> None:
    tokens = await signed_up()
    token, now = await token_in_mail(database), NOW
    if case == "late":
        now += timedelta(hours=24)
    elif case == "unknown":
        token = "x" * 43
    elif case == "refresh token":
        token = tokens.refresh_token
    else:
        await set_(database, User, (await one(database, User)).id, email="new@example.com")
    async with database.write() as session:
        if case == "other address":  # the link was for the former one
            await verify_email(session, token=token, now=now)
        else:
            with pytest.raises(InvalidToken):
                await verify_email(session, token=token, now=now)
    assert (await one(database, User)).email_verified_at is None


async def test_it_is_sent_again_until_verified(database: Database, settings: Settings, signed_up: SignUp) -> None:
    await signed_up()
    first = await token_in_mail(database)
    actor = Actor(UUID(str((await one(database, User)).id)), Role.USER)
    async with database.write() as session:
        await resend_verification(session, actor=actor, settings=settings, now=NOW + timedelta(minutes=5))
    second = await token_in_mail(database)
    assert second != first and await count(database, Email) == 2
    async with database.write() as session:
        await verify_email(session, token=second, now=NOW)
    with pytest.raises(Conflict) as caught:
        async with database.write() as session:
            await resend_verification(session, actor=actor, settings=settings, now=NOW)
    assert caught.value.error_code == "already_verified"
