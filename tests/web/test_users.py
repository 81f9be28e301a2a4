"""People over HTTP: administrators' accounts for others, names to assign to, leaving, and what one did."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from models import Email, OneTimeToken, Run, User
from scheduler.accounts.one_time_tokens import Purpose, make_token
from scheduler.clock import now
from tests.services.stored import count, one, rows, set_
from tests.web.conftest import PASSWORD, Answer, Caller, Service, assert_problem


async def make(admin: Caller, **values: Any) -> Answer:
    email = f"{uuid4().hex}@example.com"
    return await admin("POST", "/users", json={"email": email, "name": "Frida", **values})


async def login(service: Service, email: str, password: str = PASSWORD) -> Answer:
    return await service.nobody("POST", "/auth/login", json={"email": email, "password": password})


async def program_of(service: Service, person: Caller) -> Caller:
    """A program of theirs, with a token for reading."""
    made = await person("POST", "/auth/tokens", json={"name": "A script", "scopes": ["tasks:read"]})
    assert made.status == 201, made.text
    return Caller(service.base, service.session, made.json["token"])


# -- for administrators --------------------------------------------------------------------------------------


async def test_an_account_is_made_read_changed_and_deleted(service: Service) -> None:
    admin = await service.quick_person("Eve", role="admin")
    made = await make(admin, role="manager", timezone="Europe/Berlin")
    assert made.status == 201, made.text
    frida = made.json
    assert (frida["name"], frida["role"], frida["status"], frida["timezone"]) == (
        "Frida",
        "manager",
        "active",
        "Europe/Berlin",
    )
    assert frida["email_verified"] is False and frida["two_factor"] is False and frida["avatar_url"] is None
    path = f"/users/{frida['id']}"
    assert made.headers["Location"] == f"/api/v1{path}"
    read = await admin("GET", path)
    assert read.json == frida and read.headers["ETag"] == made.headers["ETag"]
    etag = read.headers["ETag"]
    assert (await admin("GET", path, headers={"If-None-Match": etag})).status == 304

    patch = {"name": "Frida K.", "role": "user", "bio": "line\nline", "phone": "+4930901820", "locale": "de"}
    changed = await admin("PATCH", path, json=patch, headers={"If-Match": etag})
    assert changed.status == 200, changed.text
    assert {key: changed.json[key] for key in patch} == patch and changed.headers["ETag"] != etag
    for method, options in (("PATCH", {"json": {"name": "Late"}}), ("DELETE", {})):
        assert_problem(await admin(method, path, headers={"If-Match": etag}, **options), 412, "precondition_failed")
    assert (await admin("GET", path)).json == changed.json

    current = changed.headers["ETag"]
    assert (await admin("DELETE", path, headers={"If-Match": current})).status == 204
    for method, options in (("GET", {}), ("PATCH", {"json": {"name": "x"}}), ("DELETE", {})):
        assert_problem(await admin(method, path, **options), 404, "not_found")
    listed = (await admin("GET", "/users?count=true")).json
    assert [each["name"] for each in listed["items"]] == ["Eve"] and listed["total"] == 1
    assert (await admin("GET", "/users/lookup?q=frida")).json["items"] == []
    # The address is free again.
    assert (await make(admin, email=frida["email"])).status == 201


async def test_both_lists_are_one(service: Service) -> None:
    admin = await service.quick_person("Eve", role="admin")
    for name in ("Anna", "Bob"):
        await service.quick_person(name)
    for query in ("", "?q=ANN", "?role=admin&count=true", "?limit=1", "?status=deactivated"):
        first, second = await admin("GET", f"/users{query}"), await admin("GET", f"/admin/users{query}")
        assert first.status == 200 and first.json == second.json
    assert "/api/v1/users?" in (await admin("GET", "/users?limit=1")).headers["Link"]


async def test_what_is_not_taken(service: Service) -> None:
    admin = await service.quick_person("Eve", role="admin")
    bob = await service.quick_person("Bob")
    for body, field in (
        ({"name": "x", "email": "nobody"}, "/email"),
        ({"name": "x"}, "/email"),
        ({"email": "x@example.com"}, "/name"),
        ({"email": "x@example.com", "name": "x", "role": "owner"}, "/role"),
        ({"email": "x@example.com", "name": "x", "role": None}, "/role"),
        ({"email": "x@example.com", "name": "x", "timezone": "Mars/Base"}, "/timezone"),
        ({"email": "x@example.com", "name": "x", "password": "password12"}, "/password"),
        ({"email": "x@example.com", "name": "x", "password": "x@example.com"}, "/password"),
        ({"email": "x@example.com", "name": "x", "status": "active"}, "/status"),
    ):
        answer = await admin("POST", "/users", json=body)
        assert_problem(answer, 422, "validation_failed")
        assert [error["field"] for error in answer.json["errors"]] == [field], body
    for change, field in (
        ({"role": "owner"}, "/role"),
        ({"status": "deleting"}, "/status"),
        ({"status": None}, "/status"),
        ({"email": "x@example.com"}, "/email"),
        ({"password": PASSWORD}, "/password"),
        ({"name": " "}, "/name"),
    ):
        answer = await admin("PATCH", f"/users/{bob.user['id']}", json=change)
        assert_problem(answer, 422, "validation_failed")
        assert [error["field"] for error in answer.json["errors"]] == [field], change
    for unknown in ("role", "status", "email", "password_hash"):  # nobody makes more of themselves
        assert_problem(await bob("PATCH", "/users/me", json={unknown: "admin"}), 422, "validation_failed")
    assert await count(service.database, User) == 2
    taken = (await one(service.database, User, User.id == UUID(bob.user["id"]))).email
    assert_problem(await make(admin, email=taken.upper()), 409, "email_taken")
    assert (await admin("PATCH", f"/users/{bob.user['id']}", json={})).status == 200


async def test_who_was_invited_chooses_a_password_and_is_in(service: Service) -> None:
    admin = await service.quick_person("Eve", role="admin")
    frida = (await make(admin)).json
    invitation = await one(service.database, Email)
    assert (invitation.template, invitation.recipient) == ("invitation", frida["email"])
    assert b"Eve has made an account for you" in invitation.message
    assert (await one(service.database, OneTimeToken)).purpose == "invitation"
    # What the mail says stands in its row only; another link of the same kind will do.
    async with service.database.write() as session:
        token = await make_token(
            session, user_id=UUID(frida["id"]), purpose=Purpose.INVITATION, email=frida["email"], now=now()
        )
    assert_problem(await login(service, frida["email"]), 401, "bad_credentials")
    body = {"token": token, "password": PASSWORD}
    assert (await service.nobody("POST", "/auth/reset-password", json=body)).status == 204
    entered = await login(service, frida["email"])
    assert entered.status == 200 and entered.json["user"]["email_verified"] is True


async def test_a_role_counts_with_the_next_request(service: Service) -> None:
    admin, bob = await service.quick_person("Eve", role="admin"), await service.quick_person("Bob")
    path = f"/users/{bob.user['id']}"
    assert_problem(await bob("GET", "/users"), 403, "forbidden")
    for role, status in (("admin", 200), ("manager", 403), ("admin", 200), ("user", 403)):
        assert (await admin("PATCH", path, json={"role": role})).status == 200
        assert (await bob("GET", "/users")).status == status
    notices = await rows(service.database, Email, Email.template == "security")
    assert [each.subject for each in notices] == ["Your role was changed"] * 4


async def test_who_is_deactivated_is_refused_at_once_and_signed_out_when_brought_back(service: Service) -> None:
    admin, bob = await service.quick_person("Eve", role="admin"), await service.person("Bob")
    path, program = f"/users/{bob.user['id']}", await program_of(service, bob)
    assert (await program("GET", "/users/me")).status == 200
    answer = await admin("PATCH", path, json={"status": "deactivated"})
    assert answer.json["status"] == "deactivated"
    for caller in (bob, program):
        assert_problem(await caller("GET", "/users/me"), 403, "deactivated")
    assert_problem(await login(service, bob.user["email"]), 403, "deactivated")
    assert (await admin("GET", "/users/lookup?q=bob")).json["items"] == []
    assert (await admin("PATCH", path, json={"status": "active"})).json["status"] == "active"
    assert_problem(await bob("GET", "/users/me"), 401, "token_revoked")
    assert (await program("GET", "/users/me")).status == 200
    assert (await login(service, bob.user["email"])).status == 200


async def test_a_deleted_persons_tasks_stay_and_are_unassigned(service: Service) -> None:
    admin, alice, bob = [
        await service.quick_person(name, role=role)
        for name, role in (("Eve", "admin"), ("Alice", "user"), ("Bob", "user"))
    ]
    task = (await alice("POST", "/tasks", json={"title": "x", "assignee_ids": [bob.user["id"]]})).json
    made = (await bob("POST", "/tasks", json={"title": "y", "assignee_ids": [alice.user["id"]]})).json
    assert (await admin("DELETE", f"/users/{bob.user['id']}")).status == 204
    assert_problem(await bob("GET", "/users/me"), 401, "token_revoked")
    left = await alice("GET", f"/tasks/{task['id']}")
    assert left.json["assignees"] == [] and left.headers["ETag"] != f'"{task["version"]}"'
    assert (await alice("GET", f"/tasks/{made['id']}")).json["creator"] == {
        "id": bob.user["id"],
        "name": "Deleted user",
    }
    # Nobody can be given anything who is not there.
    answer = await alice("PATCH", f"/tasks/{task['id']}", json={"assignee_ids": [bob.user["id"]]})
    assert_problem(answer, 422, "validation_failed")
    assert_problem(await admin("POST", f"/admin/users/{bob.user['id']}/sessions/revoke"), 404, "not_found")
    assert (await one(service.database, Run)).job == "erase_accounts"


async def test_there_is_always_an_administrator(service: Service) -> None:
    admin = await service.admin()
    path, body = f"/users/{admin.user['id']}", {"password": PASSWORD}
    for attempt in (
        admin("PATCH", path, json={"role": "user"}),
        admin("PATCH", path, json={"status": "deactivated"}),
        admin("DELETE", path),
        admin("POST", "/users/me/deactivate", json=body),
        admin("DELETE", "/users/me", json=body),
    ):
        assert_problem(await attempt, 409, "last_admin")
    other = await service.quick_person("Other", role="admin")
    answers = await asyncio.gather(
        admin("PATCH", f"/users/{other.user['id']}", json={"role": "user"}),
        other("PATCH", path, json={"role": "user"}),
    )
    # Whoever comes second is no administrator any longer, or is the last one.
    assert sorted(answer.status for answer in answers) in ([200, 403], [200, 409])
    assert await count(service.database, User, User.role == "admin") == 1


async def test_what_a_token_may_do_with_people(service: Service) -> None:
    admin, bob = await service.quick_person("Eve", role="admin"), await service.quick_person("Bob")
    with_token = {}
    for scope in ("admin", "tasks:read"):
        made = await admin("POST", "/auth/tokens", json={"name": scope, "scopes": [scope]})
        assert made.status == 201, made.text
        with_token[scope] = Caller(service.base, service.session, made.json["token"])
    path = f"/users/{bob.user['id']}"
    for method, address, body, status in (
        ("GET", "/users", None, 200),
        ("GET", path, None, 200),
        # Whoever could make an administrator could do everything.
        ("POST", "/users", {"email": "x@example.com", "name": "X"}, 403),
        ("PATCH", path, {"name": "B"}, 403),
        ("DELETE", path, None, 403),
        ("POST", "/users/me/deactivate", {"password": PASSWORD}, 403),
        ("DELETE", "/users/me", {"password": PASSWORD}, 403),
        ("GET", "/users/me/activity", None, 403),
    ):
        answer = await with_token["admin"](method, address, json=body)
        assert answer.status == status, (method, address, answer.text)
        if status == 403:
            assert_problem(answer, 403, "insufficient_scope")
        assert_problem(await with_token["tasks:read"](method, address, json=body), 403, "insufficient_scope")
    assert (await with_token["tasks:read"]("GET", "/users/lookup?q=e")).status == 200
    assert {row.name for row in await rows(service.database, User)} == {"Eve", "Bob"}


async def test_an_account_that_is_asked_for_twice_with_one_key_is_made_once(service: Service) -> None:
    admin = await service.quick_person("Eve", role="admin")
    options: dict[str, Any] = {"json": {"email": "x@example.com", "name": "X"}, "headers": {"Idempotency-Key": "1"}}
    first, again = await admin("POST", "/users", **options), await admin("POST", "/users", **options)
    assert first.status == again.status == 201 and first.raw == again.raw
    assert again.headers["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first.headers
    assert again.headers["Location"] == first.headers["Location"]
    assert await count(service.database, Email) == 1
    options["json"] = {"email": "y@example.com", "name": "X"}
    assert_problem(await admin("POST", "/users", **options), 422, "idempotency_key_reused")


# -- names ---------------------------------------------------------------------------------------------------


async def test_everybody_may_look_up_names_and_gets_no_more(service: Service) -> None:
    alice = await service.quick_person("Alice")
    for name in ("Anna", "Anne", "Bob"):
        await service.quick_person(name)
    await set_(service.database, User, UUID(alice.user["id"]), avatar_key="avatars/x/1")
    found = (await alice("GET", "/users/lookup?q=AN&count=true")).json
    assert [set(each) for each in found["items"]] == [{"id", "name", "avatar_url"}] * 2
    assert [each["name"] for each in found["items"]] == ["Anna", "Anne"] and found["total"] == 2
    (herself,) = (await alice("GET", "/users/lookup?q=alice")).json["items"]
    assert herself["avatar_url"].startswith(f"/api/v1/users/{alice.user['id']}/avatar")
    first = await alice("GET", "/users/lookup?limit=3")
    assert len(first.json["items"]) == 3 and 'rel="next"' in first.headers["Link"]
    rest = (await alice("GET", f"/users/lookup?limit=3&cursor={first.json['next_cursor']}")).json
    assert [each["name"] for each in first.json["items"] + rest["items"]] == ["Alice", "Anna", "Anne", "Bob"]
    assert len((await alice("GET", "/users/lookup?q=")).json["items"]) == 4
    for wrong in ("q=%00", "q=a&q=b", "name=x", "q=" + "x" * 201):
        assert_problem(await alice("GET", f"/users/lookup?{wrong}"), 422, "validation_failed")
    assert_problem(await service.nobody("GET", "/users/lookup?q=a"), 401, "unauthenticated")


# -- leaving -------------------------------------------------------------------------------------------------


async def test_deactivating_oneself(service: Service) -> None:
    alice = await service.person()
    for body in ({"password": "wrong" * 3}, {"password": ""}):
        assert_problem(await alice("POST", "/users/me/deactivate", json=body), 403, "bad_password")
    assert_problem(await alice("POST", "/users/me/deactivate", json={}), 422, "validation_failed")
    assert (await alice("GET", "/users/me")).status == 200
    assert (await alice("POST", "/users/me/deactivate", json={"password": PASSWORD})).status == 204
    assert_problem(await alice("GET", "/users/me"), 403, "deactivated")
    assert_problem(await login(service, alice.user["email"]), 403, "deactivated")


async def test_deleting_oneself_and_coming_back(service: Service) -> None:
    alice, admin = await service.person(), await service.quick_person("Eve", role="admin")
    program = await program_of(service, alice)
    etag = (await program("GET", "/users/me")).headers["ETag"]
    assert_problem(await alice("DELETE", "/users/me", json={"password": "wrong" * 3}), 403, "bad_password")
    stale = await alice("DELETE", "/users/me", json={"password": PASSWORD}, headers={"If-Match": '"x"'})
    assert_problem(stale, 412, "precondition_failed")
    answer = await alice("DELETE", "/users/me", json={"password": PASSWORD}, headers={"If-Match": etag})
    assert answer.status == 202, answer.text
    for caller in (alice, program):
        assert (await caller("GET", "/users/me")).status == 401
    assert_problem(await alice("GET", "/users/me"), 401, "token_revoked")
    refresh = await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": alice.refresh_token})
    assert_problem(refresh, 401, "token_revoked")
    # To administrators it is deactivated, and is still there.
    assert (await admin("GET", f"/users/{alice.user['id']}")).json["status"] == "deactivated"
    templates = {row.template for row in await rows(service.database, Email)}
    assert "account_deletion" in templates

    back = await login(service, alice.user["email"])
    assert back.status == 200 and back.json["user"]["status"] == "active"
    alice.token = back.json["access_token"]
    assert (await alice("GET", "/users/me")).status == 200
    row = await one(service.database, User, User.id == UUID(alice.user["id"]))
    assert (row.status, row.deletion_requested_at) == ("active", None)


@pytest.mark.heavy(on="sqlite")
async def test_a_wrong_password_ten_times_locks_the_confirmation_and_not_the_login(service: Service) -> None:
    alice = await service.person()
    for _ in range(10):
        assert_problem(await alice("DELETE", "/users/me", json={"password": "wrong" * 3}), 403, "bad_password")
    assert_problem(await alice("DELETE", "/users/me", json={"password": PASSWORD}), 403, "bad_password")
    assert (await login(service, alice.user["email"])).status == 200


# -- what one did --------------------------------------------------------------------------------------------


async def test_what_i_did(service: Service) -> None:
    admin = await service.admin()
    alice = await service.quick_person("Alice")
    agent = {"User-Agent": "Browser/1"}
    await admin("PATCH", "/users/me", json={"name": "Chief"}, headers=agent)
    await admin("PATCH", f"/users/{alice.user['id']}", json={"role": "manager"}, headers=agent)
    done = (await admin("GET", "/users/me/activity?count=true")).json
    assert done["total"] == len(done["items"]) and done["next_cursor"] is None
    role, name, *_ = done["items"]
    assert set(role) == {"id", "at", "action", "target_type", "target_id", "ip", "user_agent", "changes"}
    assert (role["action"], role["target_id"], role["changes"]) == (
        "user_changed",
        alice.user["id"],
        {"role": ["user", "manager"]},
    )
    assert (name["action"], name["changes"]) == ("profile_changed", {"name": ["Admin", "Chief"]})
    assert {(each["ip"], each["user_agent"]) for each in (role, name)} == {("127.0.0.1", "Browser/1")}
    assert role["at"].endswith("Z") and "signed_in" in {each["action"] for each in done["items"]}
    # A page at a time, and nobody sees what others did.
    first = (await admin("GET", "/users/me/activity?limit=1")).json
    second = (await admin("GET", f"/users/me/activity?limit=200&cursor={first['next_cursor']}")).json
    assert first["items"] + second["items"] == done["items"]
    assert (await alice("GET", "/users/me/activity")).json["items"] == []
    assert_problem(await alice("GET", "/users/me/activity?cursor=x"), 400, "bad_cursor")
    assert_problem(await alice("GET", "/users/me/activity?actor=x"), 422, "validation_failed")
    assert_problem(await service.nobody("GET", "/users/me/activity"), 401, "unauthenticated")
