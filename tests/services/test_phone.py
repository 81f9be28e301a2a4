"""Telephone numbers: the code that goes there, through a gateway that listens on this machine, and comes back."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from models import Activity, PhoneCode, Run, User
from scheduler.access import Actor
from scheduler.accounts.phone import request_code, send_code, verify_phone
from scheduler.database import Database
from scheduler.doctor import examine
from scheduler.errors import Conflict, InvalidToken, TooMany
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.settings import Settings
from tests.factories import NOW, add_person
from tests.http_receiver import Receiver, answer, http_receiver, says
from tests.services.conftest import CLIENT
from tests.services.mailed import events, perform_queued
from tests.services.stored import count, one, rows, set_

PHONE, OTHER = "+4930901820", "+442079460000"
MINUTE = timedelta(minutes=1)
ACCEPTED = says(answer("201 Created", b'{"sid": "SM1", "status": "queued"}', content_type="application/json"))


@pytest.fixture
async def alice(database: Database) -> Actor:
    return await add_person(database, "alice")


@pytest.fixture
async def gateway() -> AsyncIterator[Receiver]:
    async with http_receiver(ACCEPTED) as receiver:
        yield receiver


@dataclass
class Telephone:
    """Somebody who confirms numbers. `texts` are what the gateway was given, as (number, code)."""

    database: Database
    settings: Settings
    gateway: Receiver

    def __post_init__(self) -> None:
        url = f"twilio://AC1:hunter2@127.0.0.1:{self.gateway.port}/+15550100"
        self.settings = self.settings.model_copy(update={"sms_url": url})

    async def ask(self, person: Actor, phone: str = PHONE, *, now: datetime = NOW) -> None:
        async def work(session: AsyncSession) -> None:
            await request_code(session, actor=person, phone=phone, settings=self.settings, request_id="r", now=now)

        await self.database.retry_write(work)

    async def perform(self, run: RunningJob, *, now: datetime = NOW) -> dict[str, Any]:
        return await send_code(self.database, run=run, settings=self.settings, clock=lambda: now)

    async def deliver(self, *, now: datetime = NOW) -> list[dict[str, Any]]:
        """Have the job do what waits."""
        return await perform_queued(self.database, lambda run: self.perform(run, now=now), now=now)

    @property
    def texts(self) -> list[tuple[str, str]]:
        found = []
        for request in self.gateway.requests:
            fields = parse_qs(request.body.decode())
            (code,) = re.findall(r"\b\d{6}\b", fields["Body"][0])
            found.append((fields["To"][0], code))
        return found

    async def verify(self, person: Actor, code: str, *, now: datetime = NOW) -> None:
        await verify_phone(self.database, actor=person, code=code, client=CLIENT, settings=self.settings, now=now)


@pytest.fixture
def telephone(database: Database, settings: Settings, gateway: Receiver) -> Telephone:
    return Telephone(database, settings, gateway)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06}"


async def test_a_number_is_confirmed_by_its_code(database: Database, alice: Actor, telephone: Telephone) -> None:
    await telephone.ask(alice)
    assert await telephone.deliver() == [{"sent": 1, "gateway_id": "SM1"}]
    ((number, code),) = telephone.texts
    assert number == PHONE
    assert (await one(database, User)).phone is None  # until the code comes back
    await telephone.verify(alice, f" {code[:3]} {code[3:]} ", now=NOW + 9 * MINUTE)
    user = await one(database, User)
    assert (user.phone, user.phone_verified_at) == (PHONE, NOW + 9 * MINUTE)
    assert await count(database, PhoneCode) == 0
    done = await one(database, Activity, Activity.action == "phone_verified")
    assert done.changes == {"phone": [None, PHONE]}
    with pytest.raises(InvalidToken):
        await telephone.verify(alice, code)
    assert await events(database) == []  # nothing was replaced


async def test_the_code_is_stored_nowhere(database: Database, alice: Actor, telephone: Telephone) -> None:
    await telephone.ask(alice)
    assert (await one(database, PhoneCode)).digest is None
    await telephone.deliver()
    code = telephone.texts[0][1]
    (run,) = await rows(database, Run)
    assert PHONE not in str(run.arguments) and code not in str(run.arguments)
    stored = await one(database, PhoneCode)
    for plain in (code, alice.user_id.bytes.hex() + code):
        assert hashlib.sha256(plain.encode()).digest() != stored.digest
    # Without the secret key the digest recognises nothing.
    telephone.settings = telephone.settings.model_copy(update={"secret_keys": ("another key of 32 characters " * 2,)})
    with pytest.raises(InvalidToken):
        await telephone.verify(alice, code)


async def test_a_rotated_key_still_recognises_it(alice: Actor, telephone: Telephone) -> None:
    await telephone.ask(alice)
    await telephone.deliver()
    keys = ("a new key, in front of the one before it", *telephone.settings.secret_keys)
    telephone.settings = telephone.settings.model_copy(update={"secret_keys": keys})
    await telephone.verify(alice, telephone.texts[0][1])


async def test_a_second_attempt_sends_the_same_code(
    database: Database, alice: Actor, telephone: Telephone, gateway: Receiver
) -> None:
    await telephone.ask(alice)

    async def twice(run: RunningJob) -> dict[str, Any]:
        await telephone.perform(run)
        return await telephone.perform(run, now=NOW + 5 * MINUTE)

    await perform_queued(database, twice)
    first, second = telephone.texts
    assert first == second
    await telephone.verify(alice, second[1], now=NOW + 14 * MINUTE)  # ten minutes from when it was sent last


async def test_the_newest_request_counts(database: Database, alice: Actor, telephone: Telephone) -> None:
    await telephone.ask(alice)
    await telephone.ask(alice, OTHER, now=NOW + MINUTE)
    assert sorted(each["sent"] for each in await telephone.deliver(now=NOW + MINUTE)) == [0, 1]
    ((number, code),) = telephone.texts
    assert number == OTHER
    await telephone.ask(alice, PHONE, now=NOW + 2 * MINUTE)
    with pytest.raises(InvalidToken):  # it is void as soon as another is asked for
        await telephone.verify(alice, code, now=NOW + 2 * MINUTE)


async def test_five_tries(database: Database, alice: Actor, telephone: Telephone) -> None:
    await telephone.ask(alice)
    await telephone.deliver()
    code = telephone.texts[0][1]
    tries = [telephone.verify(alice, wrong(code)) for _ in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(result) for result in results} == {InvalidToken}
    assert (await one(database, PhoneCode)).attempts == 5
    with pytest.raises(InvalidToken):
        await telephone.verify(alice, code)
    assert (await one(database, User)).phone is None


async def test_of_fifty_uses_at_once_exactly_one_wins(database: Database, alice: Actor, telephone: Telephone) -> None:
    await telephone.ask(alice)
    await telephone.deliver()
    code = telephone.texts[0][1]
    results = await asyncio.gather(*(telephone.verify(alice, code) for _ in range(50)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["InvalidToken"] * 49 + ["NoneType"]
    assert await count(database, Activity, Activity.action == "phone_verified") == 1


@pytest.mark.parametrize("case", ["late", "not sent yet", "somebody else's", "nobody asked"])
async def test_codes_that_do_not_work(database: Database, alice: Actor, telephone: Telephone, case: str) -> None:
    bob = await add_person(database, "bob")
    await telephone.ask(bob if case == "nobody asked" else alice)
    code, now = "000000", NOW
    if case != "not sent yet":
        await telephone.deliver()
        code = telephone.texts[0][1]
    if case == "late":
        now += 10 * MINUTE
    elif case == "somebody else's":
        await telephone.ask(bob)
        await telephone.deliver()
        code = next(found for _, found in reversed(telephone.texts))
    with pytest.raises(InvalidToken):
        await telephone.verify(alice, code, now=now)
    assert await count(database, User, User.phone.is_not(None)) == 0


async def test_another_number_in_place_of_a_verified_one_is_told(
    database: Database, alice: Actor, telephone: Telephone
) -> None:
    await set_(database, User, alice.user_id, phone=OTHER, phone_verified_at=NOW)
    await telephone.ask(alice)
    await telephone.deliver()
    await telephone.verify(alice, telephone.texts[0][1])
    assert await events(database) == ["Your telephone number was changed"]


async def test_five_an_hour(database: Database, alice: Actor, telephone: Telephone) -> None:
    bob = await add_person(database, "bob")
    for number in range(5):
        await telephone.ask(alice, now=NOW + number * MINUTE)
    with pytest.raises(TooMany) as caught:
        await telephone.ask(alice, now=NOW + 10 * MINUTE)
    assert caught.value.retry_after_s == 50 * 60
    await telephone.ask(bob)
    await telephone.ask(alice, now=NOW + 61 * MINUTE)
    # Of many at once no more either.
    carol = await add_person(database, "carol")
    results = await asyncio.gather(*(telephone.ask(carol) for _ in range(12)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType"] * 5 + ["TooMany"] * 7


async def test_without_a_gateway(database: Database, alice: Actor, telephone: Telephone, settings: Settings) -> None:
    await telephone.ask(alice)
    telephone.settings = settings
    with pytest.raises(Conflict) as caught:
        await telephone.ask(alice)
    assert caught.value.error_code == "no_sms_gateway"

    async def fails(run: RunningJob) -> bool:
        with pytest.raises(JobFailed) as failed:
            await telephone.perform(run)
        return failed.value.permanent

    assert await perform_queued(database, fails) == [True]


async def test_the_doctor_asks_the_gateway(telephone: Telephone, gateway: Receiver, settings: Settings) -> None:
    async def line(settings: Settings) -> str:
        said: list[str] = []
        await examine(settings, say=said.append)
        (found,) = (each for each in said if each[7:].startswith("sms "))
        assert "hunter2" not in " ".join(said)
        return found

    assert (await line(telephone.settings)).startswith(f"ok     sms        127.0.0.1:{gateway.port}, without TLS")
    assert (await line(settings)).startswith("ok     sms        none is set")
    gateway.scripts = {gateway.requests[0].path: says(answer("401 Unauthorized"))}
    assert (await line(telephone.settings)).startswith("WRONG  sms        PUNCTUAL_SMS_URL: ")


@pytest.mark.parametrize(("status", "permanent"), [("400 Bad Request", True), ("429 Too Many Requests", False)])
async def test_a_gateway_that_does_not_take_it(
    database: Database, alice: Actor, telephone: Telephone, gateway: Receiver, status: str, permanent: bool
) -> None:
    gateway.scripts = {
        "/2010-04-01/Accounts/AC1/Messages.json": says(
            answer(status, b'{"code": 21211, "message": "The number %s is bad"}' % PHONE.encode())
        )
    }
    await telephone.ask(alice)

    async def fails(run: RunningJob) -> tuple[bool, str]:
        with pytest.raises(JobFailed) as failed:
            await telephone.perform(run)
        return failed.value.permanent, str(failed.value)

    ((was_permanent, message),) = await perform_queued(database, fails)
    assert was_permanent is permanent
    assert "21211" in message and PHONE not in message and telephone.texts[0][1] not in message


@pytest.mark.parametrize("case", ["too late", "deactivated", "by hand"])
async def test_a_run_that_nobody_waits_for_sends_nothing(
    database: Database, alice: Actor, telephone: Telephone, case: str
) -> None:
    await telephone.ask(alice)
    if case == "deactivated":
        await set_(database, User, alice.user_id, status="deactivated")
    if case == "by hand":
        run = await one(database, Run)
        await set_(database, Run, run.id, owner_id=None)

        async def fails(run: RunningJob) -> None:
            with pytest.raises(JobFailed):
                await telephone.perform(run)

        await perform_queued(database, fails)
    else:
        now = NOW + 60 * MINUTE if case == "too late" else NOW
        assert await telephone.deliver(now=now) == [{"sent": 0}]
    assert telephone.gateway.requests == []
