"""E-mail addresses over HTTP: verified, and changed."""

from __future__ import annotations

from models import User
from tests.services.mailed import events, mail, mails
from tests.services.stored import count
from tests.web.conftest import PASSWORD, Service, assert_problem, start
from tests.web.test_pages import assert_page


async def test_verify_by_the_api(service: Service) -> None:
    alice = await service.person()
    token = (await mail(service.database, "verify_email")).token
    answer = await service.nobody("POST", "/auth/verify-email", json={"token": token})
    assert (answer.status, answer.raw) == (204, b"")
    assert (await alice("GET", "/users/me")).json["email_verified"] is True
    again = await service.nobody("POST", "/auth/verify-email", json={"token": token})
    assert_problem(again, 422, "invalid_token")
    assert_problem(await alice("POST", "/auth/resend-verification"), 409, "already_verified")


async def test_change_by_the_link(service: Service) -> None:
    alice = await service.person()
    bob = await service.person("Bob")
    old, new = alice.user["email"], "new-" + alice.user["email"]
    wrong = await alice("POST", "/users/me/email", json={"email": new, "password": "not the password"})
    assert_problem(wrong, 403, "bad_password")
    answers = [
        await alice("POST", "/users/me/email", json={"email": email, "password": PASSWORD})
        for email in (bob.user["email"].upper(), old, f" {new.upper()} ")
    ]
    assert [(each.status, each.raw) for each in answers] == [(202, b"")] * 3
    (sent,) = await mails(service.database, "change_email")
    assert sent.to == new
    assert len(await mails(service.database, to=bob.user["email"])) == 1  # the verification of his own
    assert (await alice("GET", "/users/me")).json["email"] == old

    shown = await service.nobody("GET", f"//act/verify?token={sent.token}")
    assert_page(shown, 200)
    assert new in shown.text and (await alice("GET", "/users/me")).json["email"] == old
    assert_page(await service.nobody("POST", f"//act/verify?token={sent.token}"), 200)
    me = (await alice("GET", "/users/me")).json
    assert (me["email"], me["email_verified"]) == (new, True)
    assert (await events(service.database, to=old))[-1] == "Your e-mail address was changed"
    assert_page(await service.nobody("POST", f"//act/verify?token={sent.token}"), 422)
    for email, status in ((old, 401), (new, 200)):
        signed_in = await service.nobody("POST", "/auth/login", json={"email": email, "password": PASSWORD})
        assert signed_in.status == status


async def test_an_address_that_was_taken_meanwhile(service: Service) -> None:
    alice = await service.person()
    new = "new-" + alice.user["email"]
    await alice("POST", "/users/me/email", json={"email": new, "password": PASSWORD})
    token = (await mail(service.database, "change_email")).token
    body = {"email": new, "password": PASSWORD, "name": "Quick"}
    assert (await service.nobody("POST", "/auth/signup", json=body)).status == 201
    answer = await service.nobody("POST", "/auth/verify-email", json={"token": token})
    assert_problem(answer, 409, "email_taken")
    assert_page(await service.nobody("POST", f"//act/verify?token={token}"), 409)
    assert await count(service.database, User, User.email == new) == 1


async def test_who_mistyped_their_address_can_still_correct_it(service: Service) -> None:
    """Where addresses must be verified, and the one that was given is nobody's."""
    alice = await service.person()
    settings = service.settings.model_copy(update={"require_verified_email": True})
    runner, base = await start(settings, service.database)
    try:
        alice.base = base
        new = "new-" + alice.user["email"]
        assert_problem(await alice("PATCH", "/users/me", json={"name": "A"}), 403, "email_unverified")
        body = {"email": new, "password": PASSWORD}
        assert (await alice("POST", "/users/me/email", json=body)).status == 202
        assert await events(service.database) == []  # to an address that nobody has proved
        token = (await mail(service.database, "change_email", to=new)).token
        assert (await alice("POST", "/auth/verify-email", json={"token": token})).status == 204
        assert (await alice("PATCH", "/users/me", json={"name": "A"})).status == 200  # at once
    finally:
        await runner.cleanup()
