"""Two-factor sign-in and the lock of the login, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pyotp
import pytest
import time_machine

from models import User
from scheduler.clock import now
from tests.services.stored import set_
from tests.web.conftest import PASSWORD, Answer, Caller, Service, assert_problem

STEP = timedelta(seconds=30)


async def login(service: Service, person: Caller, **more: object) -> Answer:
    body = {"email": person.user["email"], "password": PASSWORD, **more}
    return await service.nobody("POST", "/auth/login", json=body)


@pytest.fixture
def _time_stands_still() -> Iterator[None]:
    """So that no step of a code ends between its making and its use."""
    with time_machine.travel(now(), tick=False):
        yield


@pytest.mark.heavy(on="mariadb")
@pytest.mark.usefixtures("_time_stands_still")
async def test_on_in_and_off(service: Service) -> None:
    alice = await service.person()
    assert alice.user["two_factor"] is False
    enrolled = await alice("POST", "/auth/enable-2fa")
    assert enrolled.status == 200, enrolled.text
    assert set(enrolled.json) == {"secret", "otpauth_uri", "qr_svg"}
    assert enrolled.headers["Cache-Control"] == "no-store"
    assert enrolled.json["qr_svg"].startswith("<svg")
    authenticator = pyotp.parse_uri(enrolled.json["otpauth_uri"])
    assert isinstance(authenticator, pyotp.TOTP)
    assert (authenticator.secret, authenticator.issuer, authenticator.name) == (
        enrolled.json["secret"],
        "Punctual",
        alice.user["email"],
    )
    etag = (await alice("GET", "/users/me")).headers["ETag"]
    assert_problem(await alice("POST", "/auth/confirm-2fa", json={"otp": "123"}), 401, "bad_otp")
    assert (await alice("GET", "/users/me", headers={"If-None-Match": etag})).status == 304
    confirmed = await alice("POST", "/auth/confirm-2fa", json={"otp": authenticator.at(now() - STEP)})
    assert confirmed.status == 200, confirmed.text
    codes = confirmed.json["recovery_codes"]
    assert set(confirmed.json) == {"recovery_codes"} and len(set(codes)) == 10
    me = await alice("GET", "/users/me")
    assert me.json["two_factor"] is True and me.headers["ETag"] != etag
    assert_problem(await alice("POST", "/auth/enable-2fa"), 409, "already_enabled")
    assert_problem(await alice("POST", "/auth/confirm-2fa", json={"otp": authenticator.now()}), 409, "already_enabled")

    asked = await login(service, alice)
    assert_problem(asked, 401, "otp_required")
    assert asked.headers["WWW-Authenticate"] == "Bearer"
    assert_problem(await login(service, alice, otp=""), 401, "otp_required")
    assert_problem(await login(service, alice, otp=None), 401, "otp_required")
    assert_problem(await login(service, alice, otp=authenticator.at(now() - STEP)), 401, "bad_otp")  # it confirmed
    assert_problem(await login(service, alice, otp="123456789"), 401, "bad_otp")
    assert_problem(await login(service, alice, otp=codes[0], password="wrong password"), 401, "bad_credentials")
    code = authenticator.now()
    inside = await service.nobody(
        "POST", "/auth/login", data={"email": alice.user["email"], "password": PASSWORD, "otp": code}
    )
    assert inside.status == 200, inside.text
    assert inside.json["user"]["two_factor"] is True
    assert_problem(await login(service, alice, otp=code), 401, "bad_otp")
    assert (await login(service, alice, otp=codes[0])).status == 200
    assert_problem(await login(service, alice, otp=codes[0]), 401, "bad_otp")

    off = {"password": PASSWORD, "otp": codes[1]}
    assert_problem(await alice("POST", "/auth/disable-2fa", json={**off, "password": "wrong"}), 403, "bad_password")
    assert_problem(await alice("POST", "/auth/disable-2fa", json={**off, "otp": codes[0]}), 401, "bad_otp")
    assert_problem(await alice("POST", "/auth/disable-2fa", json={"password": PASSWORD}), 422, "validation_failed")
    assert (await alice("POST", "/auth/disable-2fa", json=off)).status == 204
    assert (await login(service, alice)).json["user"]["two_factor"] is False
    assert_problem(await alice("POST", "/auth/disable-2fa", json=off), 409, "already_disabled")
    assert_problem(await alice("POST", "/auth/confirm-2fa", json={"otp": code}), 409, "not_started")


@pytest.mark.heavy(on="mariadb")
async def test_the_login_is_locked_after_ten_failures(service: Service) -> None:
    alice = await service.person()
    wrong = [await login(service, alice, password=f"wrong {number}") for number in range(10)]
    locked = [await login(service, alice), await login(service, alice, password="wrong again")]
    nobody = await service.nobody("POST", "/auth/login", json={"email": "nobody@example.com", "password": PASSWORD})
    for answer in (*wrong, *locked, nobody):
        assert_problem(answer, 401, "bad_credentials")
        assert {**answer.json, "request_id": ""} == {**wrong[0].json, "request_id": ""}
        assert set(answer.headers) == set(wrong[0].headers)
    assert (await alice("GET", "/users/me")).status == 200  # who is signed in stays so
    with time_machine.travel(now() + timedelta(minutes=15), tick=True):
        assert (await login(service, alice)).status == 200


async def test_signing_in_takes_a_deletion_back(service: Service) -> None:
    alice = await service.person()
    await set_(service.database, User, UUID(alice.user["id"]), status="deleting", deletion_requested_at=now())
    answer = await login(service, alice)
    assert answer.status == 200 and answer.json["user"]["status"] == "active"
    alice.token = answer.json["access_token"]
    assert (await alice("GET", "/users/me")).json["status"] == "active"


@pytest.mark.parametrize("path", ["enable-2fa", "confirm-2fa", "disable-2fa"])
async def test_nobody_has_two_factors(service: Service, path: str) -> None:
    answer = await service.nobody("POST", f"/auth/{path}", json={"otp": "123456", "password": PASSWORD})
    assert_problem(answer, 401, "unauthenticated")
