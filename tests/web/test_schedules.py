"""Schedules over HTTP."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from models import Run, Schedule
from scheduler.clock import format_instant, now, parse_instant
from scheduler.schedules.fire import fire_schedules
from tests.services.stored import count, rows, set_, statements
from tests.web.conftest import Caller, Service, assert_problem

TASK = {
    "type": "create_task",
    "task": {"title": "Water the plants", "reminders": [{"remind_at": "2199-01-01T00:00:00Z"}]},
}
REQUEST = {
    "type": "http_request",
    "method": "POST",
    "url": "https://example.com/hook?x=1",
    "headers": {"X-Key": "k"},
    "body": '{"a": 1}\n',
    "timeout_s": 5,
    "expect_status": 204,
}
GOOD: dict[str, Any] = {"name": "Weekly 🪴", "cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "action": TASK}


async def make(caller: Caller, **changes: Any) -> dict[str, Any]:
    answer = await caller("POST", "/schedules", json=GOOD | changes)
    assert answer.status == 201, answer.text
    made: dict[str, Any] = answer.json
    return made


async def test_the_life_of_a_schedule(service: Service) -> None:
    alice = await service.person(timezone="Asia/Tokyo")
    answer = await alice("POST", "/schedules", json=GOOD)
    assert answer.status == 201, answer.text
    made = answer.json
    path = f"/schedules/{made['id']}"
    assert answer.headers["Location"] == "/api/v1" + path
    assert {key: made[key] for key in GOOD} == GOOD
    assert (made["enabled"], made["overlap"], made["missed"], made["last_run"]) == (True, "skip", "once", None)
    assert parse_instant(made["next_run_at"]) > now()
    got = await alice("GET", path)
    assert got.json == made and got.headers["ETag"] == answer.headers["ETag"]
    assert (await alice("GET", path, headers={"If-None-Match": got.headers["ETag"]})).status == 304
    assert (await alice("GET", "/schedules?count=true")).json == {"items": [made], "next_cursor": None, "total": 1}

    stale = {"If-Match": '"0-0"'}
    assert_problem(await alice("PATCH", path, json={"name": "no"}, headers=stale), 412, "precondition_failed")
    assert_problem(await alice("DELETE", path, headers=stale), 412, "precondition_failed")
    fresh = {"If-Match": got.headers["ETag"]}
    paused = await alice("PATCH", path, json={"enabled": False, "action": REQUEST}, headers=fresh)
    assert paused.status == 200, paused.text
    assert paused.json["next_run_at"] is None and paused.json["action"] == REQUEST
    assert_problem(await alice("PATCH", path, json={"name": "no"}, headers=fresh), 412, "precondition_failed")
    assert (await alice("PATCH", path, json={})).json == paused.json

    again = (await alice("PATCH", path, json={"enabled": True, "cron": "*/5 * * * *", "overlap": "queue"})).json
    assert again["cron"] == "*/5 * * * *" and again["overlap"] == "queue" and again["name"] == GOOD["name"]
    assert now() < parse_instant(again["next_run_at"]) <= now() + timedelta(minutes=5)
    present = (await alice("GET", path)).headers["ETag"]
    assert (await alice("DELETE", path, headers={"If-Match": present})).status == 204
    for method in ("GET", "DELETE"):
        assert_problem(await alice(method, path), 404, "not_found")
    assert (await alice("GET", "/schedules")).json["items"] == []


async def test_the_defaults(service: Service) -> None:
    alice = await service.person(timezone="Asia/Tokyo")
    answer = await alice("POST", "/schedules", json={"name": "n", "cron": "0 0 L * *", "action": TASK})
    assert answer.json["timezone"] == "Asia/Tokyo" and answer.json["cron"] == "0 0 L * *"


async def test_what_it_did(service: Service) -> None:
    alice = await service.person()
    made = await make(alice)
    path = f"/schedules/{made['id']}"
    asked = await alice("POST", path + "/run", headers={"Idempotency-Key": "k", "X-Request-ID": "r"})
    assert asked.status == 202, asked.text
    run = asked.json
    assert (run["job"], run["trigger"], run["state"]) == ("run_schedule", "manual", "queued")
    assert run["schedule_id"] == made["id"] and run["request_id"] == "r" and run["worker"] is None
    assert asked.headers["Location"] == f"/api/v1/runs/{run['id']}"
    assert (await alice("GET", f"/runs/{run['id']}")).json == run
    again = await alice("POST", path + "/run", headers={"Idempotency-Key": "k"})
    assert again.status == 202 and again.json["id"] == run["id"]
    other = await make(alice, name="Another")
    refused = await alice("POST", f"/schedules/{other['id']}/run", headers={"Idempotency-Key": "k"})
    assert_problem(refused, 422, "idempotency_key_reused")

    due = now().replace(second=0, microsecond=0)
    await set_(service.database, Schedule, UUID(other["id"]), next_run_at=due, cron="* * * * *")
    await fire_schedules(service.database, now=now())
    fired = (await alice("GET", f"/schedules/{other['id']}/runs?count=true")).json
    assert fired["total"] == 1 and fired["items"][0]["trigger"] == "cron" and fired["items"][0]["scheduled_for"]
    shown = (await alice("GET", f"/schedules/{other['id']}")).json
    assert shown["last_run"] == fired["items"][0] and parse_instant(shown["next_run_at"]) > now()

    assert {each["id"] for each in (await alice("GET", "/runs")).json["items"]} == {run["id"], fired["items"][0]["id"]}
    assert (await alice("GET", path + "/runs?trigger=cron")).json["items"] == []
    assert len((await alice("GET", path + "/runs?state=queued&state=running&trigger=manual")).json["items"]) == 1
    assert_problem(await alice("GET", path + "/runs?job=run_schedule"), 422, "validation_failed")

    assert (await alice("POST", f"/runs/{run['id']}/cancel")).json["state"] == "cancelled"
    assert (await alice("GET", path)).json["last_run"]["state"] == "cancelled"


async def test_its_runs_change_by_themselves_and_that_is_no_lost_update(service: Service) -> None:
    alice = await service.person()
    made = await alice("POST", "/schedules", json=GOOD)
    path, etag = f"/schedules/{made.json['id']}", made.headers["ETag"]
    await alice("POST", path + "/run")
    seen = await alice("GET", path, headers={"If-None-Match": etag})
    assert seen.status == 200 and seen.json["last_run"]
    assert (await alice("PATCH", path, json={"name": "Mine"}, headers={"If-Match": etag})).status == 200
    answers = await asyncio.gather(
        *(
            alice("PATCH", path, json={"name": f"Number {number}"}, headers={"If-Match": etag})
            for number, etag in enumerate([(await alice("GET", path)).headers["ETag"]] * 4)
        )
    )
    assert sorted(answer.status for answer in answers) == [200, 412, 412, 412]


async def test_making_up_for_the_past(service: Service) -> None:
    alice = await service.person()
    made = await make(alice, cron="0 * * * *", timezone="UTC", enabled=False)
    path = f"/schedules/{made['id']}/backfill"
    body = {"from": "2026-01-01T00:00:00Z", "until": "2026-01-01T05:00:00Z"}
    assert (await alice("POST", path, json=body)).json == {"runs": 5}
    again = await alice("POST", path, json=body | {"until": "2026-01-01T07:00:00+01:00"})
    assert again.status == 202 and again.json == {"runs": 1}
    runs = await rows(service.database, Run)
    assert {format_instant(run.scheduled_for)[11:13] for run in runs} == {"00", "01", "02", "03", "04", "05"}
    assert all(run.owner_id == UUID(alice.user["id"]) for run in runs)
    shown = (await alice("GET", f"/schedules/{made['id']}/runs?state=queued&count=true")).json
    assert shown["total"] == 6 and {run["state"] for run in shown["items"]} == {"queued"}
    for wrong, field in (
        ({"from": body["until"], "until": body["from"]}, "/from"),
        ({**body, "until": format_instant(now() + timedelta(days=1))}, "/until"),
        ({**body, "from": "2020-01-01T00:00:00Z"}, "/from"),
        ({"until": body["until"]}, "/from"),
        ({**body, "from": "2026-01-01T00:00:00"}, "/from"),
        ({**body, "since": body["from"]}, "/since"),
    ):
        answer = await alice("POST", path, json=wrong)
        assert_problem(answer, 422, "validation_failed")
        assert answer.json["errors"][0]["field"] == field, answer.text
    assert await count(service.database, Run) == 6


async def test_they_are_ones_own(service: Service) -> None:
    alice, carol, admin = await service.person("Alice"), await service.person("Carol"), await service.admin()
    made = await make(alice)
    body = {"from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    for caller in (carol, admin):
        assert (await caller("GET", "/schedules")).json["items"] == []
        for each in (made["id"], str(uuid4()), "x", "%00"):
            for method, path, json in (
                ("GET", "", None),
                ("PATCH", "", {"name": "Hers"}),
                ("DELETE", "", None),
                ("POST", "/run", None),
                ("GET", "/runs", None),
                ("POST", "/backfill", body),
            ):
                answer = await caller(method, f"/schedules/{each}{path}", **({"json": json} if json else {}))
                assert_problem(answer, 404, "not_found")
    assert (await alice("GET", f"/schedules/{made['id']}")).json == made
    assert await count(service.database, Run) == 0


# What of a schedule's body is wrong, and where the answer must point.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "/name"),
    ({"name": None}, "/name"),
    ({"name": "a\nb"}, "/name"),
    ({"name": "x" * 201}, "/name"),
    ({"cron": ""}, "/cron"),
    ({"cron": "daily"}, "/cron"),
    ({"cron": "@daily"}, "/cron"),
    ({"cron": "* * * *"}, "/cron"),
    ({"cron": "* * * * * *"}, "/cron"),
    ({"cron": "60 * * * *"}, "/cron"),
    ({"cron": "0 0 30 2 *"}, "/cron"),
    ({"cron": "0 0 * * MON-XYZ"}, "/cron"),
    ({"cron": "\u0660 0 * * *"}, "/cron"),
    ({"cron": 5}, "/cron"),
    ({"timezone": "Mars/Olympus"}, "/timezone"),
    ({"enabled": 1}, "/enabled"),
    ({"enabled": None}, "/enabled"),
    ({"overlap": "kill"}, "/overlap"),
    ({"missed": "all"}, "/missed"),
    ({"next_run_at": None}, "/next_run_at"),
    ({"action": None}, "/action"),
    ({"action": []}, "/action"),
    ({"action": {}}, "/action/type"),
    ({"action": {"type": "shell"}}, "/action/type"),
    ({"action": {"type": ["create_task"]}}, "/action/type"),
    ({"action": {"type": "send_digest"}}, "/action/type"),
    ({"action": {"type": "send_digest", "to": "me"}}, "/action/to"),
    ({"action": {"type": "create_task"}}, "/action/task"),
    ({"action": {"type": "create_task", "task": {}}}, "/action/task/title"),
    ({"action": {"type": "create_task", "task": {"title": "T", "x": 1}}}, "/action/task/x"),
    ({"action": {"type": "create_task", "task": {"title": "T", "due_at": "now"}}}, "/action/task/due_at"),
    (
        {
            "action": {
                "type": "create_task",
                "task": {"title": "T", "reminders": [{"remind_at": "2001-01-01T00:00:00Z"}]},
            }
        },
        "/action/task/reminders/0/remind_at",
    ),
    (
        {"action": {"type": "create_task", "task": {"title": "T", "assignee_ids": [str(uuid4())]}}},
        "/action/task/assignee_ids/0",
    ),
    ({"action": TASK | {"url": "https://example.com"}}, "/action/url"),
    ({"action": {"type": "http_request"}}, "/action/url"),
    ({"action": REQUEST | {"url": ""}}, "/action/url"),
    ({"action": REQUEST | {"url": "/relative"}}, "/action/url"),
    ({"action": REQUEST | {"url": "file:///etc/passwd"}}, "/action/url"),
    ({"action": REQUEST | {"url": "http://user:pass@example.com"}}, "/action/url"),
    ({"action": REQUEST | {"url": "http://127.0.0.1/"}}, "/action/url"),
    ({"action": REQUEST | {"url": "http://[::1]:8080/"}}, "/action/url"),
    ({"action": REQUEST | {"url": "http://169.254.169.254/latest/meta-data"}}, "/action/url"),
    ({"action": REQUEST | {"url": "http://0x7f.1/"}}, "/action/url"),
    ({"action": REQUEST | {"method": "TRACE"}}, "/action/method"),
    ({"action": REQUEST | {"method": "get"}}, "/action/method"),
    ({"action": REQUEST | {"headers": []}}, "/action/headers"),
    ({"action": REQUEST | {"headers": {"X": 1}}}, "/action/headers/X"),
    ({"action": REQUEST | {"headers": {"Host": "example.org"}}}, "/action/headers/Host"),
    ({"action": REQUEST | {"headers": {"X": "a\r\nY: b"}}}, "/action/headers/X"),
    ({"action": REQUEST | {"headers": {"A/B": "c"}}}, "/action/headers/A~1B"),
    ({"action": REQUEST | {"body": {"a": 1}}}, "/action/body"),
    ({"action": REQUEST | {"timeout_s": 0.5}}, "/action/timeout_s"),
    ({"action": REQUEST | {"timeout_s": 61}}, "/action/timeout_s"),
    ({"action": REQUEST | {"timeout_s": "5"}}, "/action/timeout_s"),
    ({"action": REQUEST | {"timeout_s": True}}, "/action/timeout_s"),
    ({"action": REQUEST | {"expect_status": 99}}, "/action/expect_status"),
    ({"action": REQUEST | {"expect_status": []}}, "/action/expect_status"),
    ({"action": REQUEST | {"expect_status": [200, "x"]}}, "/action/expect_status"),
    ({"action": REQUEST | {"expect_status": True}}, "/action/expect_status"),
]


async def test_bad_schedules_are_refused_whole(service: Service) -> None:
    alice = await service.person()
    made = await make(alice)
    path = f"/schedules/{made['id']}"
    for wrong, field in BAD:
        for method, where, body in (("POST", "/schedules", GOOD | wrong), ("PATCH", path, {"missed": "none"} | wrong)):
            answer = await alice(method, where, json=body)
            assert_problem(answer, 422, "validation_failed")
            assert field in [error["field"] for error in answer.json["errors"]], (body, answer.text)
    assert (await alice("GET", "/schedules?count=true")).json["total"] == 1
    assert (await alice("GET", path)).json == made


@pytest.mark.parametrize(
    "action",
    [
        {"type": "http_request", "url": "http://example.com"},
        REQUEST | {"expect_status": [200, 404]},
        REQUEST | {"timeout_s": 1.5, "expect_status": None, "body": None},
        REQUEST | {"body": "🦄" * 100 + "\r\n\t", "headers": {}},
        {"type": "create_task", "task": {"title": "T", "due_at": "2030-01-01T00:00:00Z", "assignee_ids": []}},
    ],
)
async def test_actions_come_back_as_they_were(service: Service, action: dict[str, Any]) -> None:
    alice = await service.person()
    assert (await make(alice, action=action))["action"] == action


async def test_pages(service: Service) -> None:
    alice = await service.person()
    made = [(await make(alice, name=f"Number {number}"))["id"] for number in range(5)]
    first = await alice("GET", "/schedules?limit=3")
    assert first.headers["Link"].endswith('rel="next"')
    second = await alice("GET", f"/schedules?limit=3&cursor={first.json['next_cursor']}")
    assert [each["id"] for each in first.json["items"] + second.json["items"]] == made[::-1]
    costs = set()
    for limit in (1, 5):
        with statements(service.database) as seen:
            await alice("GET", f"/schedules?limit={limit}")
        costs.add(len(seen))
    assert len(costs) == 1
