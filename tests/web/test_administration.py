"""What only administrators may do: people, everybody's tasks, sessions, e-mails, the service at a glance."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from models import Email, Reminder, Run, Task, User, Worker
from scheduler.clock import now
from tests.conftest import Stack
from tests.factories import add_rows, email_row, reminder_row, run_row, task_row
from tests.services.stored import statements
from tests.web.conftest import PASSWORD, Service, assert_problem
from web.handlers import ROUTE_TABLES
from web.routing import Route

ROUTES = [route for table in ROUTE_TABLES for route in table.routes]


def address(route: Route, part: str) -> str:
    """The route's path with `part` wherever it has an id or a name."""
    path = route.path
    for name in (*route.ids, *route.names):
        path = path.replace(f"{{{name}}}", part)
    return path.removeprefix("/api/v1")


def test_what_lies_below_admin_is_for_administrators() -> None:
    assert {route.auth for route in ROUTES if "/admin/" in route.path} == {"admin"}
    assert all(route.auth is not None for route in ROUTES if "/runs" in route.path or "/schedules" in route.path)


async def test_nobody_else_gets_in_whatever_the_id(service: Service) -> None:
    alice = await service.person()
    dora = await service.person("Dora")
    async with service.database.write() as session:
        await session.execute(update(User).where(User.id == UUID(dora.user["id"])).values(role="manager"))
    below = [route for route in ROUTES if route.auth == "admin"]
    assert len(below) > 12
    for route in below:
        for part in (str(uuid4()), "x", "cleanup", "%00"):
            path = address(route, part)
            for caller in (alice, dora):
                assert_problem(await caller(route.method, path, json={}), 403, "forbidden")
            assert_problem(await service.nobody(route.method, path, json={}), 401, "unauthenticated")


async def test_people(service: Service) -> None:
    admin = await service.admin()
    people = [await service.person(name) for name in ("Anna", "bob", "Cara")]
    await people[0]("PATCH", "/users/me", json={"name": "Ärgernis"})
    await people[2]("PATCH", "/users/me", json={"name": "Cara_"})
    everybody = (await admin("GET", "/admin/users?count=true")).json
    assert everybody["total"] == 4
    assert [user["id"] for user in everybody["items"]] == [each.user["id"] for each in (*people[::-1], admin)]
    assert everybody["items"][-1]["role"] == "admin"
    first = (await admin("GET", "/admin/users?limit=3")).json
    rest = (await admin("GET", f"/admin/users?limit=3&cursor={first['next_cursor']}")).json
    assert first["items"] + rest["items"] == everybody["items"] and rest["next_cursor"] is None
    for query, names in (
        ("q=BOB", {"bob"}),
        ("q=ärger", {"Ärgernis"}),
        ("q=ÄRGERNIS", {"Ärgernis"}),
        ("q=%25", set()),
        ("q=_", {"Cara_"}),
        ("q=example.com", {"Ärgernis", "bob", "Cara_", "Admin"}),
        ("role=admin", {"Admin"}),
        ("role=admin&role=user&status=active", {"Ärgernis", "bob", "Cara_", "Admin"}),
        ("status=deactivated", set()),
    ):
        found = (await admin("GET", f"/admin/users?{query}&count=true")).json
        assert {user["name"] for user in found["items"]} == names, query
        assert found["total"] == len(names)
    assert "password" not in (await admin("GET", "/admin/users")).text
    for wrong in ("role=owner", "status=gone", "q=%00", "name=x"):
        assert_problem(await admin("GET", f"/admin/users?{wrong}"), 422, "validation_failed")


async def test_everybodys_tasks(service: Service) -> None:
    admin, alice, bob = await service.admin(), await service.person("Alice"), await service.person("Bob")
    for caller, title in ((alice, "A"), (bob, "B")):
        await caller("POST", "/tasks", json={"title": title})
    every = (await admin("GET", "/admin/tasks?count=true")).json
    assert {task["title"] for task in every["items"]} == {"A", "B"} and every["total"] == 2
    assert (await admin("GET", "/admin/tasks?status=completed")).json["items"] == []
    page = await admin("GET", "/admin/tasks?limit=1")
    assert page.headers["Link"].startswith("</api/v1/admin/tasks?") and page.json["next_cursor"]
    assert_problem(await admin("GET", "/admin/tasks?scope=all"), 422, "validation_failed")


async def test_signing_a_person_out_everywhere(service: Service) -> None:
    admin, alice, bob = await service.admin(), await service.person("Alice"), await service.person("Bob")
    other = await service.nobody("POST", "/auth/login", json={"email": alice.user["email"], "password": PASSWORD})
    assert (await admin("POST", f"/admin/users/{alice.user['id']}/sessions/revoke")).status == 204
    for token in (alice.token, other.json["access_token"]):
        alice.token = token
        assert_problem(await alice("GET", "/users/me"), 401, "token_revoked")
    for token in (alice.refresh_token, other.json["refresh_token"]):
        answer = await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": token})
        assert_problem(answer, 401, "token_revoked")
    assert (await bob("GET", "/users/me")).status == 200
    assert (await admin("POST", f"/admin/users/{alice.user['id']}/sessions/revoke")).status == 204
    login = await service.nobody("POST", "/auth/login", json={"email": alice.user["email"], "password": PASSWORD})
    assert login.status == 200
    for unknown in (str(uuid4()), "x"):
        assert_problem(await admin("POST", f"/admin/users/{unknown}/sessions/revoke"), 404, "not_found")


async def test_emails(service: Service) -> None:
    admin = await service.admin()
    at = now().replace(microsecond=0)
    sent, dead = email_row(at), email_row(at - timedelta(minutes=1), state="dead", sent_at=None, last_error="550 no")
    await add_rows(service.database, Email, [sent, dead])
    found = (await admin("GET", "/admin/emails?count=true&template=reminder")).json
    assert [each["id"] for each in found["items"]] == [str(sent["id"]), str(dead["id"])] and found["total"] == 2
    first = found["items"][0]
    assert first["to"] == "alice@example.com" and first["message_id"] == sent["message_id"]
    assert first["sent_at"] and first["next_attempt_at"] is None and "message" not in first
    assert len((await admin("GET", "/admin/emails?state=dead")).json["items"]) == 1
    assert len((await admin("GET", "/admin/emails?q=ALICE%40")).json["items"]) == 2

    again = await admin("POST", f"/admin/emails/{dead['id']}/retry")
    assert again.status == 202
    assert again.json["state"] == "pending" and again.json["next_attempt_at"] and again.json["last_error"] == "550 no"
    assert_problem(await admin("POST", f"/admin/emails/{sent['id']}/retry"), 409, "already_sent")
    assert_problem(await admin("POST", f"/admin/emails/{uuid4()}/retry"), 404, "not_found")
    for wrong in ("state=gone", "template=x", "since=now"):
        assert_problem(await admin("GET", f"/admin/emails?{wrong}"), 422, "validation_failed")


@pytest.mark.heavy(on="mariadb")
async def test_the_service_at_a_glance(service: Service, stack: Stack) -> None:
    admin = await service.admin()
    at = now()
    running = run_row(at, state="running", finished_at=None, worker="box-1")
    await add_rows(
        service.database,
        Run,
        [
            running,
            run_row(at, state="running", finished_at=None, worker="gone"),
            run_row(at - timedelta(seconds=60), state="waiting"),
            run_row(at - timedelta(seconds=30), state="queued"),
            run_row(at - timedelta(seconds=10), state="dispatched", queue="schedules"),
            run_row(at - timedelta(days=1), queue="schedules"),
        ],
    )
    worker = {
        "name": "box-1",
        "version": "1.2",
        "queues": ["default"],
        "concurrency": 100,
        "beat": 1,
        "started_at": at,
        "heartbeat_at": at,
    }
    await add_rows(service.database, Worker, [worker])
    user_id = UUID(admin.user["id"])
    task = task_row(user_id)
    await add_rows(service.database, Task, [task])
    fires = [(at + timedelta(days=1), "pending"), (at - timedelta(minutes=2), "pending"), (at, "sending"), (at, "sent")]
    await add_rows(
        service.database,
        Reminder,
        [reminder_row(task["id"], user_id, fire_at, state=state) for fire_at, state in fires],
    )
    await add_rows(service.database, Email, [email_row(state=state) for state in ("sent", "sent", "dead", "pending")])

    stats = (await admin("GET", "/admin/stats")).json
    queues = {queue["name"]: queue for queue in stats["queues"]}
    assert {name: queue["depth"] for name, queue in queues.items()} == {"default": 2, "schedules": 1}
    assert 60 <= queues["default"]["oldest_s"] < 90 and 10 <= queues["schedules"]["oldest_s"] < 40
    assert [(each["name"], each["running"]) for each in stats["workers"]] == [("box-1", [str(running["id"])])]
    assert stats["workers"][0]["concurrency"] == 100 and stats["workers"][0]["heartbeat_at"].endswith("Z")
    assert stats["reminders"] == {"pending": 3, "late": 1}
    assert stats["emails"] == {"pending": 1, "sending": 0, "sent": 2, "dead": 1}
    assert 0 < stats["database_ms"] < 1000 and 0 < stats["redis_ms"] < 1000

    stack.redis.pause()
    try:
        away = (await admin("GET", "/admin/stats")).json
    finally:
        stack.redis.resume()
    assert away["redis_ms"] is None and away["emails"] == stats["emails"]


async def test_the_stats_of_nothing(service: Service) -> None:
    admin = await service.admin()
    stats = (await admin("GET", "/admin/stats")).json
    assert {queue["name"] for queue in stats["queues"]} >= {"default", "schedules"}
    assert all(queue["depth"] == 0 and queue["oldest_s"] == 0 for queue in stats["queues"])
    assert stats["workers"] == [] and stats["reminders"] == {"pending": 0, "late": 0}


async def test_lists_cost_a_fixed_number_of_statements(service: Service) -> None:
    admin = await service.admin()
    await admin("GET", "/users/me")  # who this is, is known from here on
    at = now()

    async def cost(path: str) -> int:
        await admin("GET", "/users/me")  # so that who asks is known, and not read
        with statements(service.database) as seen:
            answer = await admin("GET", path)
        assert answer.status == 200, answer.text
        return len(seen)

    paths = ["/admin/runs", "/runs", "/admin/emails", "/admin/users", "/admin/tasks", "/admin/stats"]
    paths += ["/users?count=true", "/users/lookup?q=a", "/users/me/activity?count=true"]
    paths += ["/admin/runs?state=queued&state=failed&count=true"]
    owner_id = UUID(admin.user["id"])
    await add_rows(service.database, Run, [run_row(at, owner_id=owner_id, state="queued")])
    await add_rows(service.database, Email, [email_row(at)])
    await add_rows(service.database, Task, [task_row(owner_id)])
    few = {path: await cost(path) for path in paths}
    await add_rows(service.database, Run, [run_row(at, owner_id=owner_id, state="queued") for _ in range(40)])
    await add_rows(service.database, Email, [email_row(at) for _ in range(40)])
    await add_rows(service.database, Task, [task_row(owner_id) for _ in range(40)])
    assert {path: await cost(path) for path in paths} == few
