"""Personal API tokens over HTTP: made, shown once, used for what they are for, taken back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from models import Activity, ApiToken, Email, User
from scheduler.accounts.api_tokens import MOST
from scheduler.accounts.scopes import SCOPES, Scope
from scheduler.clock import format_instant, now
from scheduler.identifiers import new_id
from scheduler.logs.look import redact_text
from tests.services.stored import one, rows, set_
from tests.web.conftest import Caller, Service, assert_problem
from web.handlers import ROUTE_TABLES
from web.routing import API_PREFIX, Route


async def make(person: Caller, *scopes: str, **more: Any) -> Caller:
    """A program with a token of this person's."""
    body = {"name": "Backup", "scopes": list(scopes) or ["tasks:read"], **more}
    answer = await person("POST", "/auth/tokens", json=body)
    assert answer.status == 201, answer.text
    return Caller(person.base, person.session, answer.json["token"], answer.json)


# -- made and taken back -------------------------------------------------------------------------------------


async def test_it_is_shown_once_and_works_until_it_is_deleted(service: Service) -> None:
    alice = await service.person()
    program = await make(alice, "tasks:write", "tasks:read", "tasks:write")
    made = program.user
    assert set(made) == {"id", "name", "scopes", "created_at", "expires_at", "last_used_at", "token"}
    assert made["scopes"] == ["tasks:read", "tasks:write"] and made["expires_at"] is None
    assert made["token"].startswith("pun_t_")
    task = await program("POST", "/tasks", json={"title": "From a program"})
    assert task.status == 201 and task.json["creator"]["id"] == alice.user["id"]
    listed = await alice("GET", "/auth/tokens?count=true")
    assert listed.json["total"] == 1 and made["token"] not in listed.text
    assert {key: value for key, value in listed.json["items"][0].items() if key != "last_used_at"} == {
        key: value for key, value in made.items() if key not in ("token", "last_used_at")
    }
    stored = await one(service.database, ApiToken)
    assert program.token and program.token.encode() not in bytes(stored.digest)
    assert (await alice("DELETE", f"/auth/tokens/{made['id']}")).status == 204
    assert_problem(await program("GET", "/tasks"), 401, "token_revoked")
    assert (await alice("GET", "/auth/tokens")).json["items"] == []
    assert_problem(await alice("DELETE", f"/auth/tokens/{made['id']}"), 404, "not_found")


async def test_it_is_written_down_and_the_person_is_told(service: Service) -> None:
    alice = await service.person()
    program = await make(alice, "tasks:read")
    await alice("DELETE", f"/auth/tokens/{program.user['id']}")
    written = await rows(service.database, Activity, Activity.target_type == "api_token")
    assert [(row.action, row.ip, str(row.target_id)) for row in written] == [
        ("api_token_created", "127.0.0.1", program.user["id"]),
        ("api_token_deleted", "127.0.0.1", program.user["id"]),
    ]
    assert written[0].changes == {"name": [None, "Backup"], "scopes": [None, ["tasks:read"]]}
    (mail,) = await rows(service.database, Email, Email.template == "security")
    assert mail.recipient == alice.user["email"]
    assert program.token and program.token.encode() not in mail.message


async def test_no_log_shows_it(service: Service) -> None:
    program = await make(await service.person())
    assert program.token and program.token not in redact_text(f"refused {program.token} of somebody")


async def test_it_expires(service: Service) -> None:
    alice = await service.person()
    soon = now() + timedelta(hours=1)
    program = await make(alice, expires_at=format_instant(soon))
    assert program.user["expires_at"] == format_instant(soon)
    assert (await program("GET", "/tasks")).status == 200
    row = await one(service.database, ApiToken)
    await set_(service.database, ApiToken, row.id, expires_at=now() - timedelta(seconds=1))
    fresh = await make(alice)  # a change of hers, after which everybody looks again
    assert (await alice("DELETE", f"/auth/tokens/{fresh.user['id']}")).status == 204
    assert_problem(await program("GET", "/tasks"), 401, "token_expired")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scopes": ["tasks:read"]}, "/name"),
    ({"name": "", "scopes": ["tasks:read"]}, "/name"),
    ({"name": "x" * 101, "scopes": ["tasks:read"]}, "/name"),
    ({"name": "a\nb", "scopes": ["tasks:read"]}, "/name"),
    ({"name": "x"}, "/scopes"),
    ({"name": "x", "scopes": []}, "/scopes"),
    ({"name": "x", "scopes": "tasks:read"}, "/scopes"),
    ({"name": "x", "scopes": ["tasks"]}, "/scopes/0"),
    ({"name": "x", "scopes": ["tasks:read", "all"]}, "/scopes/1"),
    ({"name": "x", "scopes": ["tasks:read"], "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
    ({"name": "x", "scopes": ["tasks:read"], "expires_at": "tomorrow"}, "/expires_at"),
    ({"name": "x", "scopes": ["tasks:read"], "token": "mine"}, "/token"),
]


async def test_what_is_not_taken(service: Service) -> None:
    alice = await service.person()
    for body, field in REFUSED:
        refused = await alice("POST", "/auth/tokens", json=body)
        assert_problem(refused, 422, "validation_failed")
        assert [error["field"] for error in refused.json["errors"]] == [field], body
    assert (await alice("GET", "/auth/tokens")).json["items"] == []


async def test_there_are_so_many_and_no_more(service: Service) -> None:
    alice = await service.person()
    user = await one(service.database, User)
    values = [
        {
            "id": new_id(),
            "digest": number.to_bytes(32, "big"),
            "user_id": user.id,
            "name": f"Token {number}",
            "scopes": "tasks:read",
            "created_at": now(),
        }
        for number in range(MOST - 1)
    ]
    async with service.database.write() as session:
        await session.execute(insert(ApiToken), values)
    last = await make(alice)
    body = {"name": "One too many", "scopes": ["tasks:read"]}
    assert_problem(await alice("POST", "/auth/tokens", json=body), 409, "too_many_tokens")
    first = await alice("GET", "/auth/tokens?limit=60")
    second = await alice("GET", f"/auth/tokens?limit=60&cursor={first.json['next_cursor']}")
    seen = [each["id"] for page in (first, second) for each in page.json["items"]]
    assert len(set(seen)) == MOST and seen[0] == last.user["id"]


async def test_others_tokens_are_not_there(service: Service) -> None:
    alice, bob, admin = await service.person("Alice"), await service.person("Bob"), await service.admin()
    program = await make(bob)
    for caller in (alice, admin):
        assert_problem(await caller("DELETE", f"/auth/tokens/{program.user['id']}"), 404, "not_found")
        assert (await caller("GET", "/auth/tokens")).json["items"] == []
    assert_problem(
        await bob("DELETE", f"/auth/tokens/{program.user['id']}", headers={"If-Match": '"x"'}),
        412,
        "precondition_failed",
    )
    assert (await program("GET", "/tasks")).status == 200


# -- what it is for ------------------------------------------------------------------------------------------


SESSION_ONLY = "a session"


def wanted(route: Route) -> str:
    """What the contract's section 3 asks of a token, from the address alone: the other way to say it."""
    path, reads = route.path.removeprefix(API_PREFIX), route.method == "GET"
    if path.startswith("/admin/"):
        return "admin"
    if path.startswith("/auth/"):
        return SESSION_ONLY
    if path.startswith(("/schedules", "/runs", "/webhooks", "/calendar")):
        return "tasks:write"
    if path.startswith(("/notifications", "/events", "/ws")):
        return "notifications"
    if path.startswith(("/tasks", "/reminders", "/tags", "/comments", "/attachments", "/recurrence")):
        return "tasks:read" if reads or path == "/recurrence/preview" else "tasks:write"
    pictures = ("/users/me/avatar", "/users/{user_id}/avatar")
    if reads and path in ("/users/me", "/users/me/deliveries", "/users/lookup", *pictures):
        return "tasks:read"
    if reads and path in ("/users", "/users/{user_id}"):
        return "admin"  # what /admin/users shows; but who could make an administrator would be for everything
    assert path.startswith("/users"), f"{route.method} {path}: say here, and at the route, what token it takes"
    return SESSION_ONLY


ROUTES = [route for table in ROUTE_TABLES for route in table.routes if route.auth is not None]


def test_every_route_says_what_token_it_takes() -> None:
    assert {(route.method, route.path): route.scope or SESSION_ONLY for route in ROUTES} == {
        (route.method, route.path): wanted(route) for route in ROUTES
    }


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_token_opens_just_what_it_is_for(service: Service, scope: Scope) -> None:
    """Over HTTP, every route of the service, by an administrator's token, so that no role stands in the way."""
    program = await make(await service.admin(), scope)
    opened = {"tasks:write": {"tasks:read", "tasks:write"}}.get(scope, {scope})
    for route in ROUTES:
        path = route.path
        for name in (*route.ids, *route.names):
            path = path.replace(f"{{{name}}}", str(new_id()))
        answer = await program(route.method, "/" + path)
        refused = answer.status == 403 and answer.json["code"] == "insufficient_scope"
        assert refused is (wanted(route) not in opened), (route.method, route.path, answer.status, answer.text)
        assert answer.status != 401


@pytest.mark.heavy(on="mariadb")
async def test_only_an_administrators_token_is_for_administration(service: Service) -> None:
    alice, admin = await service.person(), await service.admin()
    body = {"name": "x", "scopes": ["admin"]}
    assert_problem(await alice("POST", "/auth/tokens", json=body), 403, "forbidden")
    program = await make(admin, "admin")
    assert (await program("GET", "/admin/users")).status == 200
    # An administrator's token for tasks is for no administration, and administrators who are none any more have none.
    assert_problem(await (await make(admin, "tasks:write"))("GET", "/admin/users"), 403, "insufficient_scope")
    other = await service.admin()
    changed = await other("PATCH", f"/users/{admin.user['id']}", json={"role": "user"})
    assert changed.status == 200, changed.text
    assert_problem(await program("GET", "/admin/users"), 403, "forbidden")


async def test_a_token_makes_no_tokens_and_changes_no_account(service: Service) -> None:
    program = await make(await service.admin(), *SCOPES)
    body = {"name": "More", "scopes": ["tasks:read"]}
    assert_problem(await program("POST", "/auth/tokens", json=body), 403, "insufficient_scope")
    assert_problem(await program("GET", "/auth/sessions"), 403, "insufficient_scope")
    assert_problem(await program("PATCH", "/users/me", json={"name": "Other"}), 403, "insufficient_scope")
    assert_problem(await program("POST", "/auth/logout"), 403, "insufficient_scope")
    assert (await program("GET", "/users/me")).status == 200


async def test_what_is_no_token(service: Service) -> None:
    program = await make(await service.person())
    assert program.token
    for token in (program.token[:-1], program.token + "x", "pun_t_", program.token.replace("pun_t_", "pun_r_")):
        assert_problem(await Caller(service.base, service.session, token)("GET", "/tasks"), 401, "unauthenticated")
    # It signs nobody in, either.
    refused = await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": program.token})
    assert_problem(refused, 401, "unauthenticated")
