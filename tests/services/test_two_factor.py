"""Two-factor sign-in: on and off, its codes, and that each works once, however many try at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
import segno

from models import Activity, Email, LoginFailure, RecoveryCode, Session, User
from scheduler.access import Actor
from scheduler.accounts import two_factor
from scheduler.accounts.login_lock import MOST_FAILURES, WINDOW
from scheduler.accounts.one_time_codes import step_of, totp_code
from scheduler.accounts.sign_in import Tokens
from scheduler.database import REVOKED
from scheduler.encryption import Encryption
from scheduler.errors import Conflict, Invalid, NotFound, PunctualError, Unauthenticated
from tests.factories import NOW, add_person
from tests.services.conftest import CLIENT, PASSWORD, SignIn
from tests.services.stored import count, one, rows, set_

AT_ONCE = 50
LATER = NOW + timedelta(minutes=5)


@dataclass
class Alice:
    """Somebody who turns two-factor sign-in on and off."""

    actor: Actor
    sign_in: SignIn
    secret: str = ""
    recovery_codes: list[str] = field(default_factory=list)
    revoked: set[Any] = field(default_factory=set)

    def code(self, at: datetime) -> str:
        """What her authenticator shows."""
        return totp_code(self.secret, step_of(at))

    async def enable(self) -> two_factor.Enrolment:
        async with self.sign_in.database.write() as session:
            enrolment = await two_factor.enable_two_factor(
                session, actor=self.actor, encryption=self.sign_in.encryption
            )
        self.secret = enrolment.secret
        return enrolment

    async def confirm(self, otp: str, *, now: datetime = NOW) -> list[str]:
        async with self.sign_in.database.write() as session:
            codes = await two_factor.confirm_two_factor(
                session,
                actor=self.actor,
                otp=otp,
                client=CLIENT,
                encryption=self.sign_in.encryption,
                settings=self.sign_in.settings,
                now=now,
            )
            self.revoked |= session.info.get(REVOKED, set())
        self.recovery_codes = codes
        return codes

    async def turn_on(self) -> None:
        await self.enable()
        await self.confirm(self.code(NOW))

    async def disable(self, otp: str, *, password: str = PASSWORD, now: datetime = LATER) -> None:
        await two_factor.disable_two_factor(
            self.sign_in.database,
            actor=self.actor,
            password=password,
            otp=otp,
            client=CLIENT,
            passwords=self.sign_in.passwords,
            encryption=self.sign_in.encryption,
            settings=self.sign_in.settings,
            now=now,
        )


@pytest.fixture
async def alice(sign_in: SignIn, quick_hash: str) -> Alice:
    return Alice(await add_person(sign_in.database, "alice", password_hash=quick_hash), sign_in)


async def refusal(attempt: Awaitable[object]) -> str:
    """The code of the error that it raises."""
    with pytest.raises(PunctualError) as caught:
        await attempt
    return caught.value.error_code


async def told_of(alice: Alice) -> list[str]:
    """The subjects of the e-mails to her, in order."""
    return [each.subject for each in await rows(alice.sign_in.database, Email, Email.user_id == alice.actor.user_id)]


# -- on ------------------------------------------------------------------------------------------------------


async def test_it_is_on_once_a_first_code_is_confirmed(alice: Alice) -> None:
    database, sign_in = alice.sign_in.database, alice.sign_in
    enrolment = await alice.enable()
    assert enrolment.otpauth_uri.startswith("otpauth://totp/Punctual:alice%40example.com?secret=" + enrolment.secret)
    assert (await one(database, User)).totp_enabled_at is None
    assert (await sign_in()).user.totp_enabled_at is None  # nothing is asked for yet
    wrong = totp_code(alice.secret, step_of(NOW) - 5)
    for otp in (wrong, "", "x", "💥"):
        assert await refusal(alice.confirm(otp)) == "bad_otp"
    assert await count(database, RecoveryCode) == 0

    codes = await alice.confirm(alice.code(NOW))
    assert len(set(codes)) == 10
    stored = await one(database, User)
    assert (stored.totp_enabled_at, stored.totp_last_step, stored.updated_at) == (NOW, step_of(NOW), NOW)
    assert alice.revoked == {alice.actor.user_id}
    done = await one(database, Activity, Activity.action == "two_factor_enabled")
    assert (done.actor_id, done.target_id, done.ip) == (alice.actor.user_id, alice.actor.user_id, CLIENT.ip)
    assert await told_of(alice) == ["Two-factor sign-in is on"]
    assert await sign_in.refusal() == "otp_required"
    assert await sign_in.refusal(otp=" ") == "otp_required"
    assert (await sign_in(otp=alice.code(LATER), now=LATER)).user.id == alice.actor.user_id


async def test_nothing_stored_gives_a_code_away(alice: Alice) -> None:
    await alice.turn_on()
    database = alice.sign_in.database
    stored = await one(database, User)
    assert alice.secret not in stored.totp_secret
    assert alice.sign_in.encryption.decrypt(stored.totp_secret) == alice.secret
    digests = str([(row.digest, row.digest.hex()) for row in await rows(database, RecoveryCode)])
    everything = digests + str(await rows(database, Activity)) + str(await rows(database, Email))
    for code in alice.recovery_codes:
        assert code not in everything and code.replace("-", "") not in everything
    assert alice.secret not in everything


async def test_the_code_that_confirmed_it_does_not_sign_in(alice: Alice) -> None:
    await alice.turn_on()
    assert await alice.sign_in.refusal(otp=alice.code(NOW)) == "bad_otp"
    assert await alice.sign_in(otp=alice.code(NOW + timedelta(seconds=30)))


async def test_asking_again_makes_the_first_secret_void(alice: Alice) -> None:
    await alice.enable()
    first = alice.code(NOW)
    await alice.enable()
    assert await refusal(alice.confirm(first)) == "bad_otp"
    await alice.confirm(alice.code(NOW))


async def test_out_of_turn(alice: Alice) -> None:
    assert await refusal(alice.confirm("123456")) == "not_started"
    assert await refusal(alice.disable("123456")) == "already_disabled"
    await alice.turn_on()
    secret = (await one(alice.sign_in.database, User)).totp_secret
    assert await refusal(alice.enable()) == "already_enabled"
    assert await refusal(alice.confirm(alice.code(LATER), now=LATER)) == "already_enabled"
    assert (await one(alice.sign_in.database, User)).totp_secret == secret


async def test_of_confirmations_at_once_exactly_one_gives_codes(alice: Alice) -> None:
    await alice.enable()
    code = alice.code(NOW)
    results = await asyncio.gather(*(alice.confirm(code) for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 7 + ["list"]
    assert await count(alice.sign_in.database, RecoveryCode) == 10


@pytest.mark.parametrize("text", ["x", "otpauth://totp/Punctual:" + "ä" * 254 + "?secret=ABC&issuer=Punctual"])
def test_the_qr_code_is_that_of_the_text(text: str) -> None:
    svg = ElementTree.fromstring(two_factor.qr_svg(text))
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    code = segno.make(text, micro=False, error="m")
    border = 4
    size = len(code.matrix) + 2 * border
    assert (svg.get("width"), svg.get("height")) == (str(4 * size), str(4 * size))
    ground, lines = svg.iter("{http://www.w3.org/2000/svg}path")
    assert ground.get("fill") == "#fff"
    dark = set()
    x = y = 0.0
    for command in (lines.get("d") or "").replace("M", " M").replace("m", " m").replace("h", " h").split(" "):
        # `M4 4.5`, `m1 0` and `h7`; the second number of a move is a part of its own.
        if not command:
            continue
        kind, number = (command[0], command[1:]) if command[0].isalpha() else ("y", command)
        if kind == "M":
            x = float(number)
        elif kind == "m":
            x += float(number)
        elif kind == "y":
            y += float(number)
        else:
            dark |= {(int(x) + step - border, int(y) - border) for step in range(int(number))}
            x += float(number)
    assert dark == {(x, y) for y, row in enumerate(code.matrix) for x, bit in enumerate(row) if bit}


# -- codes ---------------------------------------------------------------------------------------------------


async def test_a_code_works_once_and_not_one_before_it(alice: Alice) -> None:
    await alice.turn_on()
    sign_in = alice.sign_in
    for seconds, right in ((0, True), (0, False), (-30, False), (30, True), (30, False), (60, False)):
        at = alice.code(LATER + timedelta(seconds=seconds))
        if right:
            await sign_in(otp=at, now=LATER)
        else:
            assert await sign_in.refusal(otp=at, now=LATER) == "bad_otp", seconds


async def test_a_recovery_code_works_once_and_is_told_of(alice: Alice) -> None:
    await alice.turn_on()
    database, sign_in = alice.sign_in.database, alice.sign_in
    code, other = alice.recovery_codes[:2]
    await sign_in(otp=code.upper().replace("-", " "), now=LATER)
    assert await sign_in.refusal(otp=code, now=LATER) == "bad_otp"
    await sign_in(otp=other, now=LATER)
    used = await rows(database, Activity, Activity.action == "recovery_code_used")
    assert [row.changes for row in used] == [{"recovery_codes_left": [10, 9]}, {"recovery_codes_left": [9, 8]}]
    assert [row.ip for row in used] == [CLIENT.ip] * 2
    assert (await told_of(alice))[1:] == ["A recovery code was used"] * 2
    assert await count(database, RecoveryCode, RecoveryCode.used_at == LATER) == 2


async def test_nobody_elses_code_works(alice: Alice, quick_hash: str) -> None:
    bob = Alice(await add_person(alice.sign_in.database, "bob", password_hash=quick_hash), alice.sign_in)
    await alice.turn_on()
    await bob.turn_on()
    for otp in (bob.recovery_codes[0], bob.code(LATER)):
        assert await alice.sign_in.refusal(otp=otp, now=LATER) == "bad_otp"
    await alice.sign_in("bob@example.com", otp=bob.recovery_codes[0], now=LATER)


@pytest.mark.parametrize("kind", ["totp", "recovery code"])
async def test_of_uses_at_once_exactly_one_wins(alice: Alice, kind: str) -> None:
    await alice.turn_on()
    otp = alice.code(LATER) if kind == "totp" else alice.recovery_codes[3]
    results = await asyncio.gather(*(alice.sign_in(otp=otp, now=LATER) for _ in range(AT_ONCE)), return_exceptions=True)
    assert sum(isinstance(result, Tokens) for result in results) == 1
    refused = [result.error_code for result in results if isinstance(result, Unauthenticated)]
    assert len(refused) == AT_ONCE - 1 and set(refused) <= {"bad_otp", "bad_credentials"}, results
    assert await count(alice.sign_in.database, Session) == 1
    # Each of the others was a wrong code, and the tenth of them locked.
    assert await alice.sign_in.refusal(otp=alice.code(LATER + WINDOW / 2), now=LATER + WINDOW / 2) == "bad_credentials"


async def test_one_code_either_signs_in_or_turns_it_off(alice: Alice) -> None:
    await alice.turn_on()
    code = alice.code(LATER)
    results = await asyncio.gather(
        *(alice.sign_in(otp=code, now=LATER) for _ in range(3)),
        *(alice.disable(code) for _ in range(3)),
        return_exceptions=True,
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    on = (await one(alice.sign_in.database, User)).totp_enabled_at is not None
    # Who signs in after it was turned off needs no code.
    assert len(won) == 1 if on else None in won, results
    assert won.count(None) == (0 if on else 1)


# -- off -----------------------------------------------------------------------------------------------------


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("kind", ["totp", "recovery code"])
async def test_off_with_password_and_code(alice: Alice, kind: str) -> None:
    await alice.turn_on()
    database = alice.sign_in.database
    otp = alice.code(LATER) if kind == "totp" else alice.recovery_codes[0]
    assert await refusal(alice.disable(otp, password="wrong")) == "bad_password"
    assert await refusal(alice.disable("000000000")) == "bad_otp"
    await alice.disable(otp)
    stored = await one(database, User)
    assert (stored.totp_secret, stored.totp_enabled_at, stored.totp_last_step) == (None, None, None)
    assert stored.updated_at == LATER
    assert await count(database, RecoveryCode) == 0
    assert (await told_of(alice))[-1] == "Two-factor sign-in is off"
    done = await one(database, Activity, Activity.action == "two_factor_disabled")
    assert (done.actor_id, done.at, done.user_agent) == (alice.actor.user_id, LATER, CLIENT.user_agent)
    await alice.sign_in(now=LATER)
    await alice.turn_on()  # with another secret, whose codes begin anew
    assert await alice.sign_in(otp=alice.recovery_codes[0])


async def test_a_stolen_session_is_not_good_for_guessing(alice: Alice) -> None:
    await alice.turn_on()
    for number in range(MOST_FAILURES):
        guess = alice.disable("123456", password="wrong") if number % 2 else alice.disable("1234567")
        assert await refusal(guess) == ("bad_password" if number % 2 else "bad_otp")
    assert await refusal(alice.disable(alice.code(LATER))) == "bad_password"
    assert await refusal(alice.disable(alice.recovery_codes[0])) == "bad_password"
    # And its owner, whom it does not keep out, signs in and does it later.
    assert await alice.sign_in(otp=alice.code(LATER), now=LATER)
    after = LATER + WINDOW
    await alice.disable(alice.code(after), now=after)
    assert await count(alice.sign_in.database, LoginFailure) == MOST_FAILURES


async def test_the_command_line_turns_it_off(alice: Alice, quick_hash: str) -> None:
    database, settings = alice.sign_in.database, alice.sign_in.settings
    bob = await add_person(database, "bob", password_hash=quick_hash)
    await alice.turn_on()
    with pytest.raises(NotFound, match=r"nobody@example\.com"):
        await two_factor.disable_for(database, email="nobody@example.com", settings=settings, now=LATER)
    with pytest.raises(Conflict, match=r"bob@example\.com"):
        await two_factor.disable_for(database, email="bob@example.com", settings=settings, now=LATER)
    with pytest.raises(Invalid):
        await two_factor.disable_for(database, email="bob", settings=settings, now=LATER)
    await set_(database, User, bob.user_id, status="erased")
    with pytest.raises(NotFound):
        await two_factor.disable_for(database, email="bob@example.com", settings=settings, now=LATER)
    await two_factor.disable_for(database, email=" Alice@Example.com", settings=settings, now=LATER)
    assert await alice.sign_in(now=LATER)
    assert await told_of(alice) == ["Two-factor sign-in is on", "Two-factor sign-in is off"]
    done = await one(database, Activity, Activity.action == "two_factor_disabled")
    assert (done.actor_id, done.target_id, done.ip) == (None, alice.actor.user_id, None)


# -- keys ----------------------------------------------------------------------------------------------------


async def test_a_secret_is_encrypted_anew_once_there_is_a_newer_key(alice: Alice) -> None:
    sign_in = alice.sign_in
    old, new = sign_in.settings.secret_keys[0], "n" * 40
    await alice.turn_on()
    sign_in.encryption = Encryption([new, old])
    assert await sign_in.refusal(otp="123456789", now=LATER) == "bad_otp"
    assert sign_in.encryption.is_outdated((await one(sign_in.database, User)).totp_secret)
    await sign_in(otp=alice.code(LATER), now=LATER)
    assert not sign_in.encryption.is_outdated((await one(sign_in.database, User)).totp_secret)
    sign_in.encryption = Encryption([new])
    after = LATER + timedelta(minutes=1)
    await sign_in(otp=alice.code(after), now=after)


async def test_an_operator_sees_when_a_key_may_go(alice: Alice, quick_hash: str) -> None:
    database, sign_in = alice.sign_in.database, alice.sign_in
    old, new = sign_in.settings.secret_keys[0], "n" * 40

    async def counted(*keys: str) -> tuple[int, int, int]:
        async with database.read() as session:
            return await two_factor.count_secrets(session, encryption=Encryption(keys))

    assert await counted(new) == (0, 0, 0)
    await alice.turn_on()
    sign_in.encryption = Encryption([new])
    bob = Alice(await add_person(database, "bob", password_hash=quick_hash), sign_in)
    await bob.enable()
    assert await counted(new, old) == (2, 1, 0)
    assert await counted(new) == (2, 0, 1)
    sign_in.encryption = Encryption([new, old])
    await sign_in(otp=alice.code(LATER), now=LATER)
    assert await counted(new, old) == await counted(new) == (2, 0, 0)


async def test_where_the_key_was_lost_recovery_codes_work(alice: Alice) -> None:
    await alice.turn_on()
    alice.sign_in.encryption = Encryption(["another key of 32 characters or more"])
    assert await alice.sign_in.refusal(otp=alice.code(LATER), now=LATER) == "bad_otp"
    await alice.sign_in(otp=alice.recovery_codes[0], now=LATER)
    await alice.disable(alice.recovery_codes[1])
