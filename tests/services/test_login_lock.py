"""Ten failed logins within fifteen minutes lock an account's password login for fifteen (the contract, section 1)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import structlog

from models import LoginFailure, Session, User
from scheduler.accounts.confirmation import confirm_password
from scheduler.accounts.login_lock import MOST_FAILURES, WINDOW
from scheduler.accounts.sign_in import Tokens
from scheduler.database import Database
from scheduler.errors import Forbidden
from tests.factories import NOW, add_person
from tests.services.conftest import PASSWORD, SignIn
from tests.services.stored import count, set_

SECOND = timedelta(seconds=1)


async def fail(sign_in: SignIn, times: int, *, email: str = "alice@example.com", minute: int = 0) -> None:
    for number in range(times):
        at = NOW + timedelta(minutes=minute, seconds=number)
        assert await sign_in.refusal(email, "wrong", now=at) == "bad_credentials"


async def test_after_the_tenth_the_right_password_is_wrong_for_fifteen_minutes(
    database: Database, sign_in: SignIn, quick_hash: str
) -> None:
    await add_person(database, "alice", password_hash=quick_hash)
    await fail(sign_in, MOST_FAILURES)
    last = NOW + (MOST_FAILURES - 1) * SECOND
    for at in (last, last + WINDOW / 2, last + WINDOW - SECOND):
        assert await sign_in.refusal(now=at) == "bad_credentials"
        assert await sign_in.refusal(password="wrong", now=at) == "bad_credentials"
    # What failed while it was locked did not count: nobody is kept out for longer than that.
    assert await count(database, LoginFailure) == MOST_FAILURES
    await sign_in(now=last + WINDOW)
    assert await count(database, LoginFailure) == 0


@pytest.mark.heavy(on="mariadb")
async def test_nine_do_not_lock_and_a_success_starts_anew(database: Database, sign_in: SignIn, quick_hash: str) -> None:
    alice = await add_person(database, "alice", password_hash=quick_hash)
    await fail(sign_in, MOST_FAILURES - 1)
    await sign_in(" ALICE@example.com ", now=NOW + 10 * SECOND)
    await set_(database, User, alice.user_id, password_hash=quick_hash)  # which signing in has made anew
    await fail(sign_in, MOST_FAILURES - 1, minute=1)
    await sign_in(now=NOW + timedelta(minutes=2))
    await fail(sign_in, 1, minute=2)
    assert await count(database, LoginFailure) == 1


async def test_the_window_slides(database: Database, sign_in: SignIn, quick_hash: str) -> None:
    await add_person(database, "alice", password_hash=quick_hash)
    await fail(sign_in, 5)
    await fail(sign_in, 4, minute=10)
    await fail(sign_in, 5, minute=16)  # the first five do not count any longer
    await fail(sign_in, 1, minute=17)  # the tenth within seven minutes
    assert await sign_in.refusal(now=NOW + timedelta(minutes=18)) == "bad_credentials"
    assert await sign_in.refusal(now=NOW + timedelta(minutes=31)) == "bad_credentials"
    assert await sign_in(now=NOW + timedelta(minutes=32))


@pytest.mark.heavy(on="mariadb")
async def test_only_that_account_is_locked_and_unknown_ones_no_less(
    database: Database, sign_in: SignIn, quick_hash: str
) -> None:
    await add_person(database, "alice", password_hash=quick_hash)
    await add_person(database, "bob", password_hash=quick_hash)
    with structlog.testing.capture_logs() as logged:
        await fail(sign_in, MOST_FAILURES)
        await fail(sign_in, MOST_FAILURES, email="zoe@example.com")
    assert [each.get("user_id") is None for each in logged if each["event"] == "security.sign_in_locked"] == [
        False,
        True,
    ]
    await sign_in("bob@example.com")
    # Whoever signs up with the address waits no less than anybody else.
    await add_person(database, "zoe", password_hash=quick_hash)
    assert await sign_in.refusal("zoe@example.com", now=NOW + 10 * SECOND) == "bad_credentials"
    assert await sign_in("zoe@example.com", now=NOW + WINDOW + 10 * SECOND)


async def test_of_guesses_at_once_none_wins_after_the_tenth(
    database: Database, sign_in: SignIn, quick_hash: str
) -> None:
    """All begin before any has failed; the right one is the last to be checked."""
    await add_person(database, "alice", password_hash=quick_hash)
    guesses = [f"guess {number}" for number in range(49)] + [PASSWORD]
    results = await asyncio.gather(*(sign_in(password=guess, now=NOW) for guess in guesses), return_exceptions=True)
    assert not any(isinstance(result, Tokens) for result in results)
    assert await count(database, Session) == 0
    assert await sign_in.refusal() == "bad_credentials"
    assert await count(database, LoginFailure) == MOST_FAILURES


async def test_confirming_with_a_password_is_locked_apart(database: Database, sign_in: SignIn, quick_hash: str) -> None:
    alice = await add_person(database, "alice", password_hash=quick_hash)
    nobody = await add_person(database, "nobody")  # who has no password

    async def confirm(password: str, at: timedelta = timedelta(0), user: object = alice.user_id) -> str:
        return await confirm_password(
            database,
            user_id=user,  # type: ignore[arg-type]
            password=password,
            passwords=sign_in.passwords,
            now=NOW + at,
        )

    assert await confirm(PASSWORD) == quick_hash
    for number in range(MOST_FAILURES):
        with pytest.raises(Forbidden) as caught:
            await confirm("wrong", number * SECOND)
        assert caught.value.error_code == "bad_password"
    with pytest.raises(Forbidden):
        await confirm(PASSWORD, 20 * SECOND)
    await sign_in(now=NOW + 20 * SECOND)  # her own login is not
    with pytest.raises(Forbidden):
        await confirm("nobody has this password", user=nobody.user_id)
    assert await confirm(PASSWORD, WINDOW + 9 * SECOND)
