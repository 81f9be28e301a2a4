"""Tasks, their reminders and deliveries, over HTTP."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from scheduler.clock import format_instant, now
from tests.web.conftest import Service, assert_problem


def ahead(**delta: float) -> str:
    """An instant so far ahead, as a client writes it."""
    return format_instant((now() + timedelta(**delta)).replace(microsecond=0))


async def test_the_life_of_a_task(service: Service) -> None:
    alice = await service.person("Alice", timezone="Europe/Berlin")
    bob = await service.person("Bob")
    due = ahead(days=2)
    made = await alice(
        "POST",
        "/tasks",
        json={
            "title": "  أهلاً 🦄 ",
            "description": "one\n\ttwo",
            "due_at": due.lower(),
            "assignee_ids": [bob.user["id"]],
            "reminders": [{"offset_minutes": 30}, {"remind_at": ahead(days=1), "audience": "me"}],
        },
    )
    assert made.status == 201, made.text
    task = made.json
    assert made.headers["Location"] == f"/api/v1/tasks/{task['id']}"
    assert made.headers["ETag"] == '"1"' and task["version"] == 1
    assert task["title"] == "  أهلاً 🦄 " and task["priority"] == "medium" and task["status"] == "todo"
    assert task["due_at"] == due and task["timezone"] == "Europe/Berlin" and task["all_day"] is False
    assert task["creator"] == {"id": alice.user["id"], "name": "Alice"}
    assert task["assignees"] == [{"id": bob.user["id"], "name": "Bob"}]
    assert [reminder["audience"] for reminder in task["reminders"]] == ["assignees"]

    path = f"/tasks/{task['id']}"
    assert (await bob("GET", path)).json == task
    assert (await bob("GET", path, headers={"If-None-Match": 'W/"1"'})).status == 304
    done = await bob("PATCH", path, json={"status": "completed"}, headers={"If-Match": '"1"'})
    assert done.status == 200 and done.json["completed_at"] and done.headers["ETag"] == '"2"'
    for stale in ('"1"', 'W/"2"', '"x"', '"99999999999999999999"'):
        assert_problem(
            await alice("PATCH", path, json={"title": "no"}, headers={"If-Match": stale}),
            412,
            "precondition_failed",
        )
    assert (await alice("GET", path)).json == done.json
    assert (await alice("PATCH", path, json={"due_at": None}, headers={"If-Match": "*"})).json["due_at"] is None

    assert_problem(await bob("DELETE", path), 403, "forbidden")
    assert_problem(await alice("DELETE", path, headers={"If-Match": '"1"'}), 412, "precondition_failed")
    assert (await alice("DELETE", path)).status == 204
    assert_problem(await bob("GET", path), 404, "not_found")
    assert (await alice("GET", path)).json["deleted_at"]
    assert (await alice("GET", "/tasks")).json == {"items": [], "next_cursor": None}
    restored = await alice("POST", path + "/restore")
    assert restored.status == 200 and restored.json["deleted_at"] is None
    assert_problem(await alice("POST", path + "/restore"), 409, "already_restored")


async def test_other_peoples_things_and_malformed_ids_are_the_same_404(service: Service) -> None:
    alice, carol = await service.person("Alice"), await service.person("Carol")
    task = (await alice("POST", "/tasks", json={"title": "Mine", "reminders": [{"remind_at": ahead(days=1)}]})).json
    reminder = task["reminders"][0]["id"]
    ids = (
        task["id"],
        str(UUID(int=0)),
        "x",
        "..%2f",
        "%00",
        task["id"].replace("-", ""),
        "{" + task["id"] + "}",
        "🦄",
    )
    bodies = []
    for each in ids:
        for method, path, body in (
            ("GET", f"/tasks/{each}", None),
            ("PATCH", f"/tasks/{each}", {"title": "Hers"}),
            ("DELETE", f"/tasks/{each}", None),
            ("POST", f"/tasks/{each}/restore", None),
            ("GET", f"/tasks/{each}/reminders", None),
            ("POST", f"/tasks/{each}/reminders", {"remind_at": ahead(days=1), "audience": "me"}),
            ("GET", f"/tasks/{each}/deliveries", None),
        ):
            answer = await carol(method, path, json=body) if body else await carol(method, path)
            assert_problem(answer, 404, "not_found")
            bodies.append({key: value for key, value in answer.json.items() if key not in ("request_id", "detail")})
    assert all(body == bodies[0] for body in bodies)
    for each in (reminder, str(UUID(int=0)), "x"):
        assert_problem(await carol("DELETE", f"/reminders/{each}"), 404, "not_found")
        assert_problem(await carol("POST", f"/reminders/{each}/snooze", json={"minutes": 5}), 404, "not_found")
    assert (await alice("GET", f"/tasks/{task['id']}")).json == task


async def test_pages_of_a_list(service: Service) -> None:
    alice = await service.person()
    for number in range(5):
        await alice("POST", "/tasks", json={"title": f"Task {number}", "due_at": ahead(days=number + 1)})
    titles, cursor, links = [], None, 0
    while True:
        query = {"limit": "2", "count": "true"} | ({"cursor": cursor} if cursor else {})
        page = await alice("GET", "/tasks", params=query)
        assert page.status == 200 and page.json["total"] == 5
        titles += [task["title"] for task in page.json["items"]]
        cursor = page.json["next_cursor"]
        if cursor is None:
            assert "Link" not in page.headers
            break
        links += 1
        address, relation = page.headers["Link"].split("; ")
        assert relation == 'rel="next"'
        following = await service.session.get(
            service.base + address.strip("<>"), headers={"Authorization": f"Bearer {alice.token}"}
        )
        assert next(task["title"] for task in (await following.json())["items"]) == f"Task {len(titles)}"
    assert titles == [f"Task {number}" for number in range(5)] and links == 2
    for bad in ("x", "AAAA", "W10", cursor or "bnVsbA", "%00", "🦄"):
        assert_problem(await alice("GET", f"/tasks?cursor={bad}"), 400, "bad_cursor")
    for wrong, field in (
        ("limit=0", "?limit"),
        ("limit=201", "?limit"),
        ("limit=1.0", "?limit"),
        ("limit=٣", "?limit"),
        ("limit=", "?limit"),
        ("limit=1&limit=2", "?limit"),
        ("cursor=", "?cursor"),
        ("count=1", "?count"),
        ("status=open", "?status"),
        ("status=todo&status=", "?status"),
        ("scope=everybody", "?scope"),
        ("Limit=1", "?Limit"),
    ):
        answer = await alice("GET", f"/tasks?{wrong}")
        assert_problem(answer, 422, "validation_failed")
        assert answer.json["errors"][0]["field"] == field, answer.text
    assert len((await alice("GET", "/tasks?status=todo&status=completed&limit=200")).json["items"]) == 5
    assert_problem(await alice("GET", "/tasks?scope=all"), 403, "forbidden")
    admin = await service.admin()
    assert len((await admin("GET", "/tasks?scope=all")).json["items"]) == 5


async def test_reminders_and_what_is_planned(service: Service) -> None:
    alice = await service.person()
    task = (await alice("POST", "/tasks", json={"title": "T", "due_at": ahead(days=3)})).json
    path = f"/tasks/{task['id']}"
    added = await alice("POST", path + "/reminders", json={"offset_minutes": 60.0})
    assert added.status == 201, added.text
    reminder = added.json
    assert reminder["state"] == "pending" and reminder["sent_at"] is None and reminder["offset_minutes"] == 60
    assert (await alice("GET", path + "/reminders")).json == {"items": [reminder], "next_cursor": None}
    planned = await alice("GET", "/users/me/deliveries")
    assert [entry["state"] for entry in planned.json["items"]] == ["planned"]
    assert planned.json["items"][0]["fire_at"] == reminder["remind_at"]
    assert planned.json == (await alice("GET", path + "/deliveries")).json
    snoozed = await alice("POST", f"/reminders/{reminder['id']}/snooze", json={"until": ahead(days=4)})
    assert snoozed.status == 200 and snoozed.json["audience"] == "me"
    assert (await alice("DELETE", f"/reminders/{snoozed.json['id']}")).status == 204
    assert_problem(await alice("DELETE", f"/reminders/{snoozed.json['id']}"), 404, "not_found")
    for body, field in (
        ({}, ""),
        ({"offset_minutes": 1, "remind_at": ahead(days=1)}, ""),
        ({"offset_minutes": -1}, "/offset_minutes"),
        ({"offset_minutes": 1.5}, "/offset_minutes"),
        ({"offset_minutes": "1"}, "/offset_minutes"),
        ({"offset_minutes": True}, "/offset_minutes"),
        ({"offset_minutes": 10**30}, "/offset_minutes"),
        ({"remind_at": ahead(days=-1)}, "/remind_at"),
        ({"remind_at": ahead(days=1), "audience": "all"}, "/audience"),
    ):
        answer = await alice("POST", path + "/reminders", json=body)
        assert_problem(answer, 422, "validation_failed")
        assert answer.json["errors"][0]["field"] == field, answer.text


async def test_every_list_can_be_counted(service: Service) -> None:
    alice = await service.person()
    task = (await alice("POST", "/tasks", json={"title": "T", "due_at": ahead(days=3)})).json
    path = f"/tasks/{task['id']}"
    for minutes in (10, 20, 30):
        await alice("POST", path + "/reminders", json={"offset_minutes": minutes})
    for where, total in (
        ("/tasks", 1),
        (path + "/reminders", 3),
        (path + "/deliveries", 3),
        ("/users/me/deliveries", 3),
    ):
        first = (await alice("GET", where + "?limit=1&count=true")).json
        assert (len(first["items"]), first["total"]) == (1, total), where
        assert "total" not in (await alice("GET", where + "?limit=1&count=false")).json
        if first["next_cursor"]:
            second = (await alice("GET", f"{where}?limit=1&count=true&cursor={first['next_cursor']}")).json
            assert second["total"] == total and second["items"] != first["items"]


async def test_of_two_changes_to_one_version_one_wins(service: Service) -> None:
    alice = await service.person()
    task = (await alice("POST", "/tasks", json={"title": "T"})).json
    for path, field, etag in (
        (f"/tasks/{task['id']}", "title", '"1"'),
        ("/users/me", "name", (await alice("GET", "/users/me")).headers["ETag"]),
    ):
        answers = await asyncio.gather(
            *(alice("PATCH", path, json={field: f"Number {number}"}, headers={"If-Match": etag}) for number in range(6))
        )
        assert sorted(answer.status for answer in answers) == [200] + [412] * 5
        winner = next(answer for answer in answers if answer.status == 200)
        assert (await alice("GET", path)).json == winner.json
