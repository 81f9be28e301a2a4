"""Idempotency keys: of all who come with one, one does the work; the answer is there with its effect, or not at all."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from models import IdempotencyKey, Task
from scheduler.access import Actor
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.errors import Conflict, Unavailable
from scheduler.idempotency import (
    GIVEN_UP,
    KEPT,
    LONGEST_ANSWER,
    Answer,
    Claim,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    claim,
    digest_of,
    fingerprint_of,
    keep,
    release,
)
from scheduler.tasks.create import create_task
from tests.factories import NOW, People, user_row
from tests.factories import actor as actor_of
from tests.services.stored import count, one

ENCRYPTION_KEY = "a secret key of the tests, 32 characters or more"
ENCRYPTION = Encryption([ENCRYPTION_KEY])
ANSWER = Answer(status=201, headers={"Location": "/tasks/1"}, body='{"title":"Größe 🪴"}'.encode())
MICROSECOND = timedelta(microseconds=1)
FINGERPRINT = fingerprint_of(method="POST", path="/tasks", body=b"{}")


async def ask(
    database: Database, actor: Actor, *, now: datetime = NOW, fingerprint: bytes = FINGERPRINT, key: str = "k"
) -> Claim | Answer:
    return await claim(database, actor=actor, key=key, fingerprint=fingerprint, encryption=ENCRYPTION, now=now)


async def ours(database: Database, actor: Actor, **options: Any) -> Claim:
    claimed = await ask(database, actor, **options)
    assert isinstance(claimed, Claim)
    return claimed


async def answered(database: Database, claimed: Claim, answer: Answer = ANSWER) -> None:
    async with database.write() as session:
        await keep(session, claim=claimed, answer=answer, encryption=ENCRYPTION)


async def test_the_first_works_and_the_others_get_its_answer(database: Database, people: People) -> None:
    claimed = await ours(database, people.alice)
    with pytest.raises(IdempotencyInProgress):
        await ask(database, people.alice)
    await answered(database, claimed)
    assert await ask(database, people.alice) == ANSWER
    assert await ask(database, people.alice, now=NOW + KEPT - MICROSECOND) == ANSWER


async def test_a_key_is_its_callers_own_and_for_one_request(database: Database, people: People) -> None:
    await answered(database, await ours(database, people.alice))
    await ours(database, people.bob)
    await ours(database, people.alice, key="another")
    for other in (
        fingerprint_of(method="PUT", path="/tasks", body=b"{}"),
        fingerprint_of(method="POST", path="/tasks?", body=b"{}"),
        fingerprint_of(method="POST", path="/task", body=b"s{}"),
        fingerprint_of(method="POST", path="/tasks", body=b"{} "),
    ):
        with pytest.raises(IdempotencyKeyReused):
            await ask(database, people.alice, fingerprint=other)
    # Also while the first is being worked on.
    with pytest.raises(IdempotencyKeyReused):
        await ask(database, people.bob, fingerprint=other)
    assert await ask(database, people.alice) == ANSWER


async def test_what_is_kept_of_a_request_lets_nobody_guess_at_it(database: Database, people: People) -> None:
    """A body may hold a password; a digest of it without a key could be tried against a list."""
    await ours(database, people.alice)
    assert (await one(database, IdempotencyKey)).fingerprint != FINGERPRINT


async def test_a_key_that_is_taken_back_is_free(database: Database, people: People) -> None:
    first = await ours(database, people.alice)
    async with database.write() as session:
        await release(session, claim=first)
    second = await ours(database, people.alice, fingerprint=b"x" * 32)
    async with database.write() as session:
        await release(session, claim=first)  # too late to take anything back
    await answered(database, second)
    async with database.write() as session:
        await release(session, claim=second)  # its answer was committed after all
    assert await ask(database, people.alice, fingerprint=b"x" * 32) == ANSWER


async def test_a_request_that_died_is_given_up_on(database: Database, people: People) -> None:
    first = await ours(database, people.alice)
    with pytest.raises(IdempotencyInProgress):
        await ask(database, people.alice, now=NOW + GIVEN_UP - MICROSECOND)
    found = await asyncio.gather(
        *(ask(database, people.alice, now=NOW + GIVEN_UP) for _ in range(8)), return_exceptions=True
    )
    (second,) = [each for each in found if isinstance(each, Claim)]
    assert all(isinstance(each, IdempotencyInProgress) for each in found if each is not second)
    # It was not dead: but whatever it did must not stand.
    with pytest.raises(IdempotencyInProgress):
        async with database.write() as session:
            await create_task(session, actor=people.alice, values={"title": "Twice"}, now=NOW)
            await keep(session, claim=first, answer=ANSWER, encryption=ENCRYPTION)
    assert await count(database, Task) == 0
    other = Answer(status=409, headers={}, body=b"{}")
    await answered(database, second, other)
    assert await ask(database, people.alice) == other


async def test_after_a_day_a_key_is_new(database: Database, people: People) -> None:
    await answered(database, await ours(database, people.alice))
    again = await ours(database, people.alice, now=NOW + KEPT, fingerprint=b"y" * 32)
    row = await one(database, IdempotencyKey)
    assert (row.owner, row.created_at, row.status, row.body) == (again.owner, NOW + KEPT, None, None)


async def test_of_fifty_at_once_one_has_it(database: Database, people: People) -> None:
    found = await asyncio.gather(*(ask(database, people.alice) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(each, Claim) for each in found) == 1
    assert sum(isinstance(each, IdempotencyInProgress) for each in found) == 49, found


async def test_the_answer_is_there_with_its_effect_or_not_at_all(database: Database, people: People) -> None:
    claimed = await ours(database, people.alice)
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            await create_task(session, actor=people.alice, values={"title": "Never"}, now=NOW)
            await keep(session, claim=claimed, answer=ANSWER, encryption=ENCRYPTION)
            raise ZeroDivisionError
    assert await count(database, Task) == 0
    with pytest.raises(IdempotencyInProgress):
        await ask(database, people.alice)


async def test_what_is_kept_can_be_read_with_our_keys_only(database: Database, people: People) -> None:
    await answered(database, await ours(database, people.alice, key="my key"))
    row = await one(database, IdempotencyKey)
    assert row.digest == digest_of(actor=people.alice, key="my key")
    stored = b"".join(str(value).encode() if not isinstance(value, bytes) else value for value in row)
    assert "Größe".encode() not in stored and b"title" not in stored and b"my key" not in stored
    rotated = Encryption(["a new key of 32 characters or more, newest first", ENCRYPTION_KEY])
    lost = Encryption(["another key altogether, 32 characters or more"])
    wanted: dict[str, Any] = {"actor": people.alice, "key": "my key", "fingerprint": FINGERPRINT, "now": NOW}
    assert await claim(database, encryption=rotated, **wanted) == ANSWER
    with pytest.raises(Conflict) as refused:
        await claim(database, encryption=lost, **wanted)
    assert refused.value.error_code == "conflict"


async def test_an_answer_that_is_too_long_is_not_given_again_nor_its_work_done(
    database: Database, people: People
) -> None:
    longest = Answer(status=200, headers={}, body="ß".encode() * (LONGEST_ANSWER // 2))
    await answered(database, await ours(database, people.alice), longest)
    assert await ask(database, people.alice) == longest
    longer = Answer(status=200, headers={}, body=longest.body + b"x")
    await answered(database, await ours(database, people.bob), longer)
    with pytest.raises(Conflict) as refused:
        await ask(database, people.bob)
    assert refused.value.error_code == "conflict"


async def test_a_caller_who_is_gone(database: Database, people: People) -> None:
    with pytest.raises(Unavailable):
        await ask(database, actor_of(user_row("nobody")))
