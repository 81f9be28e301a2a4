"""Passwords forgotten, reset and changed over HTTP, and the page behind the link."""

from __future__ import annotations

import re
from typing import Any

from models import Email, User
from scheduler import clock
from scheduler.accounts.invitations import send_invitation
from scheduler.accounts.password_reset import send_password_reset
from scheduler.runs.running import RunningJob
from tests.factories import add_person
from tests.services.mailed import events, mail, mails, perform_queued
from tests.services.stored import count, one
from tests.web.conftest import PASSWORD, Answer, Service, assert_problem
from tests.web.test_pages import assert_page

NEW = "another long passphrase"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def forgotten(service: Service, email: str) -> str:
    """The token that comes by mail."""
    answer = await service.nobody("POST", "/auth/forgot-password", json={"email": email})
    assert (answer.status, answer.raw) == (202, b"")
    await do_what_waits(service)
    return (await mail(service.database, "reset_password", to=email)).token


async def do_what_waits(service: Service) -> list[Any]:
    async def perform(run: RunningJob) -> dict[str, Any]:
        return await send_password_reset(service.database, run=run, settings=service.settings)

    return await perform_queued(service.database, perform, now=clock.now())


async def log_in(service: Service, email: str, password: str) -> Answer:
    return await service.nobody("POST", "/auth/login", json={"email": email, "password": password})


async def test_forgot_and_reset(service: Service) -> None:
    alice = await service.person()
    email = alice.user["email"]
    token = await forgotten(service, email)
    # Wherever the address is written, whoever asks.
    answers = [
        await service.nobody("POST", "/auth/forgot-password", json={"email": each})
        for each in (email.upper(), "nobody@example.com")
    ]
    assert [(each.status, each.raw) for each in answers] == [(202, b"")] * 2
    assert sorted(each["sent"] for each in await do_what_waits(service)) == [0, 1]

    body = {"token": token, "password": "short"}
    refused = await service.nobody("POST", "/auth/reset-password", json=body)
    assert_problem(refused, 422, "validation_failed")
    assert [error["field"] for error in refused.json["errors"]] == ["/password"]
    done = await service.nobody("POST", "/auth/reset-password", json={"token": token, "password": NEW})
    assert (done.status, done.raw) == (204, b"")
    again = await service.nobody("POST", "/auth/reset-password", json={"token": token, "password": NEW})
    assert_problem(again, 422, "invalid_token")
    assert again.json["errors"] == []
    # Every session has ended, at once.
    assert_problem(await alice("GET", "/users/me"), 401, "token_revoked")
    refresh = await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": alice.refresh_token})
    assert_problem(refresh, 401, "token_revoked")
    assert_problem(await log_in(service, email, PASSWORD), 401, "bad_credentials")
    signed_in = await log_in(service, email, NEW)
    assert signed_in.status == 200 and signed_in.json["user"]["email_verified"] is True
    assert await events(service.database, to=email) == ["Your password was reset"]


async def test_change(service: Service) -> None:
    alice = await service.person()
    email = alice.user["email"]
    other = (await log_in(service, email, PASSWORD)).json

    async def change(current: str, password: str) -> Answer:
        body = {"current_password": current, "password": password}
        return await alice("POST", "/auth/change-password", json=body)

    assert_problem(await change("not the password", NEW), 403, "bad_password")
    assert_problem(await change(PASSWORD, "1234567890"), 422, "validation_failed")
    assert (await change(PASSWORD, NEW)).status == 204
    assert (await alice("GET", "/users/me")).status == 200  # this session goes on
    theirs = {"Authorization": f"Bearer {other['access_token']}"}
    assert_problem(await service.nobody("GET", "/users/me", headers=theirs), 401, "token_revoked")
    assert_problem(await log_in(service, email, PASSWORD), 401, "bad_credentials")
    assert (await log_in(service, email, NEW)).status == 200
    assert_problem(
        await service.nobody("POST", "/auth/change-password", json={"current_password": NEW, "password": NEW}),
        401,
        "unauthenticated",
    )


async def test_bodies_that_are_not_valid(service: Service) -> None:
    for path, body, field in (
        ("/auth/forgot-password", {}, "/email"),
        ("/auth/forgot-password", {"email": "not an address"}, "/email"),
        ("/auth/forgot-password", {"email": "a@example.com", "more": 1}, "/more"),
        ("/auth/reset-password", {"token": "x"}, "/password"),
        ("/auth/reset-password", {"password": NEW}, "/token"),
        ("/auth/reset-password", {"token": 5, "password": NEW}, "/token"),
        ("/auth/reset-password", {"token": "x", "password": "with\x00control"}, "/password"),
    ):
        answer = await service.nobody("POST", path, json=body)
        assert_problem(answer, 422, "validation_failed")
        assert [error["field"] for error in answer.json["errors"]] == [field]


# -- the page --------------------------------------------------------------------------------------------------


async def test_the_page_behind_the_link(service: Service) -> None:
    alice = await service.person()
    token = await forgotten(service, alice.user["email"])
    address = f"//act/reset?token={token}"
    for _ in range(2):  # looking changes nothing, however often a scanner does
        shown = await service.nobody("GET", address + "&utm_source=mail")
        assert_page(shown, 200)
        assert shown.headers["Cache-Control"] == "no-store"
        assert alice.user["email"] in shown.text
    assert (await alice("GET", "/users/me")).status == 200
    form = re.search(r'<form class="wide" method="post" action="([^"]+)">', shown.text)
    assert form is not None and f"/{form[1]}" == address
    assert 'name="password" type="password" autocomplete="new-password"' in shown.text

    for body in ("", "password=", "password=short", "other=field", "password=1234567890&more=1"):
        refused = await service.nobody("POST", address, data=body, headers=FORM)
        assert_page(refused, 422)
        assert 'role="alert"' in refused.text and "<form" in refused.text
        assert "short" not in refused.text


async def test_the_page_sets_the_password_once(service: Service) -> None:
    alice = await service.person()
    token = await forgotten(service, alice.user["email"])
    address = f"//act/reset?token={token}"
    assert_page(await service.nobody("POST", address), 422)  # without its form: nothing to set
    done = await service.nobody("POST", address, data={"password": NEW})
    assert_page(done, 200)
    assert NEW not in done.text and 'role="status"' in done.text
    assert (await log_in(service, alice.user["email"], NEW)).status == 200
    for method in ("GET", "POST"):
        assert_page(await service.nobody(method, address, data={"password": NEW}), 422)


async def test_an_invitation_opens_the_same_page(service: Service) -> None:
    database = service.database
    bob = await add_person(database, "bob", email_verified_at=None)
    async with database.write() as session:
        user = await session.get(User, bob.user_id)
        assert user is not None
        await send_invitation(session, user=user, settings=service.settings, now=clock.now())
    token = (await mail(database, "invitation")).token
    assert_page(await service.nobody("GET", f"//act/reset?token={token}"), 200)
    answer = await service.nobody("POST", "/auth/reset-password", json={"token": token, "password": NEW})
    assert answer.status == 204
    assert (await one(database, User)).email_verified_at is not None
    assert (await log_in(service, "bob@example.com", NEW)).status == 200


async def test_links_of_other_kinds_reset_nothing(service: Service) -> None:
    await service.person()
    (sent,) = await mails(service.database, "verify_email")
    for method in ("GET", "POST"):
        assert_page(await service.nobody(method, f"//act/reset?token={sent.token}", data={"password": NEW}), 422)
        assert_page(await service.nobody(method, "//act/reset", data={"password": NEW}), 422)
    answer = await service.nobody("POST", "/auth/reset-password", json={"token": sent.token, "password": NEW})
    assert_problem(answer, 422, "invalid_token")
    assert await count(service.database, Email) == 1
