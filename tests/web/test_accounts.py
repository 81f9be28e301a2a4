"""Signing up, in and out, and one's own account, over HTTP."""

from __future__ import annotations

from tests.web.conftest import PASSWORD, Service, assert_problem


async def test_signup_login_refresh_logout(service: Service) -> None:
    alice = await service.person("Alice", timezone="Europe/Berlin")
    assert alice.user["timezone"] == "Europe/Berlin"
    assert alice.user["role"] == "user" and alice.user["status"] == "active" and alice.user["email_verified"] is False
    assert alice.user["created_at"].endswith("Z")
    me = await alice("GET", "/users/me")
    assert me.status == 200 and me.json == alice.user

    again = await service.nobody(
        "POST", "/auth/login", data={"email": " " + alice.user["email"].upper(), "password": PASSWORD}
    )
    assert again.status == 200, again.text
    assert again.json["token_type"] == "Bearer" and again.json["expires_in"] == 900
    assert_problem(
        await service.nobody("POST", "/auth/login", json={"email": alice.user["email"], "password": "wrong" * 3}),
        401,
        "bad_credentials",
    )

    rotated = await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": alice.refresh_token})
    assert rotated.status == 200
    assert_problem(
        await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": alice.refresh_token}),
        401,
        "token_revoked",
    )
    assert_problem(
        await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": rotated.json["refresh_token"]}),
        401,
        "token_revoked",
    )
    assert_problem(await alice("GET", "/users/me"), 401, "token_revoked")

    alice.token = again.json["access_token"]
    assert (await alice("POST", "/auth/logout")).status == 204
    refused = await alice("GET", "/users/me")
    assert_problem(refused, 401, "token_revoked")
    assert refused.headers["WWW-Authenticate"] == "Bearer"


async def test_a_one_time_code_is_taken_and_not_asked_for(service: Service) -> None:
    """As long as there is no two-factor sign-in."""
    alice = await service.person()
    body = {"email": alice.user["email"], "password": PASSWORD}
    for otp in ("123456", "", None):
        assert (await service.nobody("POST", "/auth/login", json={**body, "otp": otp})).status == 200
    assert (await service.nobody("POST", "/auth/login", data={**body, "otp": "123456"})).status == 200
    assert_problem(await service.nobody("POST", "/auth/login", json={**body, "otp": 123456}), 422, "validation_failed")


async def test_the_length_of_a_password_counts_after_nfkc(service: Service) -> None:
    for password, status in (
        ("\ufb03" * 4, 201),  # 4 code points, 12 after NFKC
        ("e\u0301" * 70, 201),  # 140, and 70
        ("e\u0301" * 9, 422),  # 18, and 9
        ("\ufb03" * 43, 422),  # 43, and 129
        ("x" * 1001, 422),
    ):
        body = {"email": f"{hash(password) % 10**9}@example.com", "password": password, "name": "A"}
        answer = await service.nobody("POST", "/auth/signup", json=body)
        assert answer.status == status, (password, answer.text)
        if status == 422:
            assert [error["field"] for error in answer.json["errors"]] == ["/password"]
        else:
            again = await service.nobody("POST", "/auth/login", json={key: body[key] for key in ("email", "password")})
            assert again.status == 200


async def test_a_taken_address(service: Service) -> None:
    alice = await service.person()
    body = {"email": alice.user["email"].title(), "password": PASSWORD, "name": "Other"}
    assert_problem(await service.nobody("POST", "/auth/signup", json=body), 409, "email_taken")


async def test_changing_oneself(service: Service) -> None:
    alice = await service.person()
    first = await alice("GET", "/users/me")
    etag = first.headers["ETag"]
    assert (await alice("GET", "/users/me", headers={"If-None-Match": etag})).status == 304
    changed = await alice(
        "PATCH",
        "/users/me",
        json={"name": "عليّ 🐫", "bio": "line\nline", "phone": "+4930901820", "locale": "de-AT"},
        headers={"Content-Type": "application/merge-patch+json", "If-Match": etag},
    )
    assert changed.status == 200, changed.text
    assert changed.json["name"] == "عليّ 🐫" and changed.json["phone_verified"] is False
    assert changed.headers["ETag"] != etag
    late = await alice("PATCH", "/users/me", json={"name": "Late"}, headers={"If-Match": etag})
    assert_problem(late, 412, "precondition_failed")
    assert (await alice("GET", "/users/me")).json == changed.json
    cleared = await alice("PATCH", "/users/me", json={"phone": None})
    assert cleared.json["phone"] is None
    assert_problem(await alice("PATCH", "/users/me", json={"name": None}), 422, "validation_failed")


async def test_unverified_people_may_read_where_verification_is_required(service: Service) -> None:
    from tests.web.conftest import start

    runner, base = await start(service.settings.model_copy(update={"require_verified_email": True}), service.database)
    try:
        alice = await service.person()
        alice.base = base
        assert (await alice("GET", "/users/me")).status == 200
        assert_problem(await alice("PATCH", "/users/me", json={"name": "A"}), 403, "email_unverified")
        assert (await alice("POST", "/auth/resend-verification")).status == 202
        assert (await alice("POST", "/auth/logout")).status == 204
    finally:
        await runner.cleanup()
