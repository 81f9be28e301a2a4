"""Who a request comes from: what a web process remembers, and how it hears that this is void."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from models import ApiToken, Session, User
from scheduler.access import Actor, Role
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.api_tokens import create_token, delete_token
from scheduler.accounts.authentication import Authentication
from scheduler.accounts.client import Client
from scheduler.accounts.profile import get_profile
from scheduler.accounts.revocation import PATIENCE_S, REMEMBERED_S, OwnRevocations, Revocations, revoke
from scheduler.accounts.sign_in import Tokens, end_session, open_session
from scheduler.database import Database
from scheduler.errors import Forbidden, Unauthenticated
from scheduler.rate_limits.shared import RateLimits
from scheduler.redis_client import redis_client
from scheduler.settings import Settings
from tests.conftest import Stack
from tests.factories import NOW, add_person
from tests.services.stored import count, one, set_, statements

CLIENT = Client("192.0.2.1", "a browser")


@dataclass
class Process:
    """What one web process has, with connections of its own."""

    database: Database
    authentication: Authentication
    rate_limits: RateLimits
    revocations: Revocations
    passed: list[float] = field(default_factory=lambda: [0.0])

    async def enter(self, token: str, *, now: datetime = NOW) -> Actor:
        """As the middlewares do it."""
        caller = await self.authentication.recognise(token, now=now)
        taken = await self.rate_limits.take([], epoch_of=caller.user_id)
        return await self.authentication.authenticate(caller, epoch=taken.epoch, now=now)

    async def refusal(self, token: str, *, now: datetime = NOW) -> str:
        """The code with which the token is refused."""
        with pytest.raises((Unauthenticated, Forbidden)) as caught:
            await self.enter(token, now=now)
        assert isinstance(caught.value, Unauthenticated | Forbidden)
        return caught.value.error_code


@pytest.fixture
async def start(stack: Stack, access_tokens: AccessTokens) -> AsyncIterator[Callable[[], Process]]:
    """Starts one more web process."""
    clients, processes = [], []

    def make() -> Process:
        clients.append(redis_client(stack.redis_url, timeout_s=2))
        database, passed = Database(stack.database_url), [0.0]
        began = time.monotonic()
        authentication = Authentication(
            access_tokens, database, seconds=lambda: time.monotonic() - began + passed[0], most=20
        )
        revocations = Revocations(clients[-1], lost=authentication.forget)
        database.tell_revoked = revocations.tell
        processes.append(Process(database, authentication, RateLimits(clients[-1]), revocations, passed))
        return processes[-1]

    yield make
    for process in processes:
        await process.authentication.close()
        await process.database.dispose()
    for client in clients:
        await client.aclose()


@pytest.fixture
def here(start: Callable[[], Process]) -> Process:
    return start()


@pytest.fixture
def there(start: Callable[[], Process]) -> Process:
    return start()


@pytest.fixture
async def alice(database: Database) -> Actor:
    return await add_person(database, "alice", timezone="Asia/Tokyo")


@pytest.fixture
async def tokens(database: Database, access_tokens: AccessTokens, alice: Actor) -> Tokens:
    """Alice is signed in."""
    async with database.write() as session:
        user = await get_profile(session, actor=alice)
        return await open_session(session, user=user, client=CLIENT, access_tokens=access_tokens, now=NOW)


async def api_token(
    database: Database,
    settings: Settings,
    actor: Actor,
    *scopes: str,
    expires_at: datetime | None = None,
) -> str:
    """A new one."""
    async with database.write() as session:
        made = await create_token(
            session,
            actor=actor,
            name="Backup",
            scopes=scopes or ("tasks:read",),
            expires_at=expires_at,
            client=CLIENT,
            settings=settings,
            now=NOW,
        )
    return made.token


# -- what is remembered --------------------------------------------------------------------------------------


async def test_the_table_is_read_once(here: Process, tokens: Tokens, alice: Actor) -> None:
    session_id = (await one(here.database, Session)).id
    expected = Actor(alice.user_id, Role.USER, session_id, "Asia/Tokyo", True, None)
    assert await here.enter(tokens.access_token) == expected
    with statements(here.database) as seen:
        assert [await here.enter(tokens.access_token) for _ in range(5)] == [expected] * 5
    assert seen == []


async def test_what_nobody_said_is_believed_for_ten_seconds_at_the_most(
    here: Process, tokens: Tokens, alice: Actor
) -> None:
    await here.enter(tokens.access_token)
    await set_(here.database, User, alice.user_id, role="manager")  # behind everybody's back
    here.passed[0] = REMEMBERED_S - 1
    assert (await here.enter(tokens.access_token)).role is Role.USER
    here.passed[0] = REMEMBERED_S
    assert (await here.enter(tokens.access_token)).role is Role.MANAGER


async def test_without_redis_each_request_reads_the_table(
    here: Process, tokens: Tokens, alice: Actor, stack: Stack
) -> None:
    await here.enter(tokens.access_token)
    here.rate_limits = RateLimits(None)
    for role in ("manager", "admin", "user"):
        await set_(here.database, User, alice.user_id, role=role)
        assert (await here.enter(tokens.access_token)).role == role
    # What was remembered before is forgotten: nobody could tell us meanwhile that it is void.
    await set_(here.database, User, alice.user_id, role="manager")
    here.rate_limits = RateLimits(redis_client(stack.redis_url, timeout_s=2))
    assert (await here.enter(tokens.access_token)).role is Role.MANAGER


async def test_a_flushed_redis_costs_one_read(here: Process, tokens: Tokens, stack: Stack) -> None:
    await here.enter(tokens.access_token)
    stack.redis.flushall()
    with statements(here.database) as seen:
        for _ in range(3):
            await here.enter(tokens.access_token)
    assert sum("SELECT" in statement for statement in seen) == 1


async def test_what_is_remembered_is_bounded(
    here: Process, database: Database, access_tokens: AccessTokens, tokens: Tokens
) -> None:
    async with database.write() as session:
        others = [
            await open_session(session, user=tokens.user, client=CLIENT, access_tokens=access_tokens, now=NOW)
            for _ in range(30)
        ]
    for each in others:
        await here.enter(each.access_token)
    assert len(here.authentication._known._kept) == 20
    with statements(here.database) as seen:
        await here.enter(others[-1].access_token)
    assert seen == []


# -- revocation ----------------------------------------------------------------------------------------------


Change = Callable[[Database, Actor, Actor], Awaitable[None]]


async def _end_session(database: Database, alice: Actor, signed_in: Actor) -> None:
    assert signed_in.session_id is not None
    async with database.write() as session:
        await end_session(session, session_id=signed_in.session_id, user_id=alice.user_id, now=NOW)


async def _deactivate(database: Database, alice: Actor, _: Actor) -> None:
    async with database.write() as session:
        await session.execute(User.__table__.update().where(User.id == alice.user_id).values(status="deactivated"))
        revoke(session, alice.user_id)


@pytest.mark.parametrize(("change", "code"), [(_end_session, "token_revoked"), (_deactivate, "deactivated")])
async def test_once_the_change_is_answered_no_process_lets_in(
    here: Process, there: Process, tokens: Tokens, alice: Actor, change: Change, code: str
) -> None:
    assert await here.enter(tokens.access_token) == await there.enter(tokens.access_token)
    await change(here.database, alice, await here.enter(tokens.access_token))
    assert await there.refusal(tokens.access_token) == code
    assert await here.refusal(tokens.access_token) == code


async def test_a_role_is_that_of_now_in_every_process(
    here: Process, there: Process, tokens: Tokens, alice: Actor
) -> None:
    for role in (Role.MANAGER, Role.ADMIN, Role.USER):
        async with here.database.write() as session:
            await session.execute(User.__table__.update().where(User.id == alice.user_id).values(role=role.value))
            revoke(session, alice.user_id)
        assert (await there.enter(tokens.access_token)).role is role
        assert (await here.enter(tokens.access_token)).role is role


async def test_others_are_remembered_all_the_same(
    here: Process, there: Process, database: Database, access_tokens: AccessTokens, tokens: Tokens, alice: Actor
) -> None:
    bob = await add_person(database, "bob")
    async with database.write() as session:
        user = await get_profile(session, actor=bob)
        bobs = await open_session(session, user=user, client=CLIENT, access_tokens=access_tokens, now=NOW)
    await there.enter(bobs.access_token)
    await _end_session(here.database, alice, await here.enter(tokens.access_token))
    with statements(there.database) as seen:
        await there.enter(bobs.access_token)
    assert seen == []


async def test_a_change_that_is_rolled_back_changes_nothing(here: Process, tokens: Tokens, alice: Actor) -> None:
    await here.enter(tokens.access_token)
    with pytest.raises(ZeroDivisionError):
        async with here.database.write() as session:
            revoke(session, alice.user_id)
            raise ZeroDivisionError
    with statements(here.database) as seen:
        await here.enter(tokens.access_token)
    assert seen == []


async def test_while_requests_come_in_none_is_let_in_after_the_answer(
    here: Process, there: Process, tokens: Tokens, alice: Actor
) -> None:
    """A process that reads the table just before the commit must not go by it after."""
    answered = asyncio.Event()
    late: list[bool] = []

    async def keep_asking() -> None:
        while not late or len(late) < 20:
            was_answered = answered.is_set()  # before the request begins
            try:
                await there.enter(tokens.access_token)
            except Unauthenticated:
                late.append(False)
            else:
                if was_answered:
                    late.append(True)
            there.authentication.forget()  # so that each of them reads

    signed_in = await here.enter(tokens.access_token)
    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    await asyncio.sleep(0.05)
    await _end_session(here.database, alice, signed_in)
    answered.set()
    await asyncio.gather(*asking)
    assert not any(late)


async def test_a_commit_of_which_we_hear_no_more_counts_as_one(
    here: Process, there: Process, tokens: Tokens, alice: Actor
) -> None:
    """The write that lands while its caller sees a failure."""
    await there.enter(tokens.access_token)
    signed_in = await here.enter(tokens.access_token)
    with pytest.raises(ConnectionError):
        async with here.database.write() as session:
            await end_session(session, session_id=signed_in.session_id or alice.user_id, user_id=alice.user_id, now=NOW)

            def cut(_: Any) -> None:
                raise ConnectionError("cut off after the commit")

            event.listen(session.sync_session, "after_commit", cut)
    assert (await one(here.database, Session)).ended_at == NOW
    assert await there.refusal(tokens.access_token) == "token_revoked"


async def test_a_session_that_has_ended_is_not_looked_up_again(here: Process, tokens: Tokens, alice: Actor) -> None:
    await _end_session(here.database, alice, await here.enter(tokens.access_token))
    assert await here.refusal(tokens.access_token) == "token_revoked"
    with statements(here.database) as seen:
        assert await here.refusal(tokens.access_token) == "token_revoked"
    assert seen == []


async def test_a_word_that_redis_does_not_take_goes_out_when_it_is_back(
    here: Process, there: Process, tokens: Tokens, alice: Actor, stack: Stack
) -> None:
    await there.enter(tokens.access_token)
    signed_in = await here.enter(tokens.access_token)
    stack.redis.pause()
    try:
        began = time.monotonic()
        await _end_session(here.database, alice, signed_in)
        assert time.monotonic() - began < PATIENCE_S + 1
        # The process itself forgets at once, and with no epoch to be had everybody reads the table.
        assert here.authentication._known.get(await here.authentication.recognise(tokens.access_token, now=NOW)) is None
        assert await here.refusal(tokens.access_token) == "token_revoked"
    finally:
        stack.redis.resume()
    await here.revocations.finished()
    assert await there.refusal(tokens.access_token) == "token_revoked"


async def test_a_process_that_serves_nobody_tells_those_that_do(
    there: Process, database: Database, settings: Settings, tokens: Tokens, alice: Actor
) -> None:
    """A worker, or the command line."""
    signed_in = await there.enter(tokens.access_token)
    own = OwnRevocations(database, settings)
    await _end_session(database, alice, signed_in)
    await own.close()
    assert await there.refusal(tokens.access_token) == "token_revoked"


async def test_where_no_redis_is_set_nobody_is_told(
    database: Database, settings: Settings, tokens: Tokens, alice: Actor
) -> None:
    own = OwnRevocations(database, settings.model_copy(update={"redis_url": None}))
    async with database.write() as session:
        revoke(session, alice.user_id)
    await own.close()


async def test_who_is_signed_out_makes_no_token_meanwhile(
    here: Process, database: Database, settings: Settings, tokens: Tokens, alice: Actor
) -> None:
    """A request that was let in before, and goes on after: it must not leave a way back in."""
    signed_in = await here.enter(tokens.access_token)
    await _end_session(here.database, alice, signed_in)
    with pytest.raises(Unauthenticated) as caught:
        await api_token(database, settings, signed_in)
    assert caught.value.error_code == "token_revoked"
    await _deactivate(here.database, alice, signed_in)
    with pytest.raises(Unauthenticated):
        await api_token(database, settings, alice)
    assert await count(database, ApiToken) == 0


# -- API tokens ----------------------------------------------------------------------------------------------


async def test_an_api_token_is_its_owner_with_its_scopes(
    here: Process, database: Database, settings: Settings, alice: Actor
) -> None:
    token = await api_token(database, settings, alice, "tasks:write", "notifications")
    actor = await here.enter(token)
    assert actor == Actor(
        alice.user_id, Role.USER, None, "Asia/Tokyo", True, frozenset({"tasks:write", "notifications"})
    )
    await here.authentication.close()
    with statements(here.database) as seen:
        assert await here.enter(token) == actor
    assert seen == []


async def test_a_token_that_is_taken_back_stops_working_in_every_process(
    here: Process, there: Process, database: Database, settings: Settings, alice: Actor
) -> None:
    token = await api_token(database, settings, alice)
    await here.enter(token)
    await there.enter(token)
    async with here.database.write() as session:
        token_id = (await one(database, ApiToken)).id
        await delete_token(session, actor=alice, token_id=token_id, client=CLIENT, now=NOW)
    assert await there.refusal(token) == "token_revoked"
    assert await here.refusal(token) == "token_revoked"


async def test_a_token_expires_to_the_second_also_where_it_is_remembered(
    here: Process, database: Database, settings: Settings, alice: Actor
) -> None:
    end = NOW + timedelta(hours=1)
    token = await api_token(database, settings, alice, expires_at=end)
    assert (await here.enter(token, now=end - timedelta(seconds=1))).user_id == alice.user_id
    assert await here.refusal(token, now=end) == "token_expired"
    here.authentication.forget()
    assert await here.refusal(token, now=end) == "token_expired"


async def test_whose_account_is_deactivated_has_no_tokens(
    here: Process, database: Database, settings: Settings, alice: Actor
) -> None:
    token = await api_token(database, settings, alice)
    await here.enter(token)
    await _deactivate(here.database, alice, alice)
    assert await here.refusal(token) == "deactivated"


async def test_when_a_token_was_used_is_known_to_the_minute(
    here: Process, database: Database, settings: Settings, alice: Actor
) -> None:
    token = await api_token(database, settings, alice)

    async def used(at: datetime) -> datetime | None:
        here.authentication.forget()
        await here.enter(token, now=at)
        await here.authentication.close()
        found: datetime | None = (await one(database, ApiToken)).last_used_at
        return found

    assert (await one(database, ApiToken)).last_used_at is None
    assert await used(NOW) == NOW
    assert await used(NOW + timedelta(seconds=59)) == NOW
    assert await used(NOW + timedelta(seconds=60)) == NOW + timedelta(seconds=60)


async def test_what_we_never_gave_is_seen_without_a_look_at_the_table(
    here: Process, database: Database, settings: Settings, alice: Actor
) -> None:
    token = await api_token(database, settings, alice)
    with statements(here.database) as seen:
        for wrong in ("pun_t_", "pun_t_" + "A" * 49, token[:-1], token + "A", token[:-1] + "!", token.swapcase()):
            assert await here.refusal(wrong) == "unauthenticated"
    assert seen == []


async def test_any_character_changed_makes_an_api_token_invalid(
    here: Process, database: Database, settings: Settings, alice: Actor
) -> None:
    token = await api_token(database, settings, alice)
    for index in range(len(token)):
        changed = token[:index] + ("A" if token[index] != "A" else "B") + token[index + 1 :]
        assert await here.refusal(changed) == "unauthenticated"
    assert (await here.enter(token)).user_id == alice.user_id
