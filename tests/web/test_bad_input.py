"""Bad input: a problem document as the contract says, never a 5xx, and nothing half-written (issue 2, point
5)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.web.conftest import PASSWORD, Service, assert_problem

GOOD = {"title": "Good", "due_at": "2030-06-01T12:00:00Z"}

# What of a task's body is wrong, and where the answer must point.
BAD_TASKS: list[tuple[dict[str, Any], str]] = [
    ({"title": None}, "/title"),
    ({"title": ""}, "/title"),
    ({"title": " \u3000\u00a0"}, "/title"),
    ({"title": "x" * 201}, "/title"),
    ({"title": 1}, "/title"),
    ({"title": ["x"]}, "/title"),
    ({"title": {"x": 1}}, "/title"),
    ({"title": True}, "/title"),
    ({"title": "a\x00b"}, "/title"),
    ({"title": "a\nb"}, "/title"),
    ({"title": "a\x7f"}, "/title"),
    ({"title": "a\x85b"}, "/title"),
    ({"description": "x" * 20_001}, "/description"),
    ({"description": None}, "/description"),
    ({"description": "a\x00"}, "/description"),
    ({"description": "a\x1b[0m"}, "/description"),
    ({"status": "open"}, "/status"),
    ({"status": "TODO"}, "/status"),
    ({"status": None}, "/status"),
    ({"priority": 1}, "/priority"),
    ({"priority": ""}, "/priority"),
    ({"category": ""}, "/category"),
    ({"category": "x" * 51}, "/category"),
    ({"category": 0}, "/category"),
    ({"due_at": "2030-06-01T12:00:00"}, "/due_at"),
    ({"due_at": "2030-06-01"}, "/due_at"),
    ({"due_at": "2030-06-01 12:00:00Z"}, "/due_at"),
    ({"due_at": "2030-02-30T12:00:00Z"}, "/due_at"),
    ({"due_at": "2030-06-01T25:00:00Z"}, "/due_at"),
    ({"due_at": "2030-06-01T12:00:00+24:00"}, "/due_at"),
    ({"due_at": "2030-06-01T12:00:00+0100"}, "/due_at"),
    ({"due_at": "0001-01-01T00:00:00Z"}, "/due_at"),
    ({"due_at": "0001-01-01T00:00:00+14:00"}, "/due_at"),
    ({"due_at": "9999-12-31T23:59:59-14:00"}, "/due_at"),
    ({"due_at": "9999-12-31T23:59:59Z"}, "/due_at"),
    ({"due_at": "2200-01-01T00:00:00Z"}, "/due_at"),
    ({"due_at": "1969-12-31T23:59:59Z"}, "/due_at"),
    ({"due_at": "-2030-06-01T12:00:00Z"}, "/due_at"),
    ({"due_at": "٢٠٣٠-06-01T12:00:00Z"}, "/due_at"),
    ({"due_at": ""}, "/due_at"),
    ({"due_at": 1900000000}, "/due_at"),
    ({"due_at": {"$date": 1}}, "/due_at"),
    ({"all_day": 1}, "/all_day"),
    ({"all_day": "true"}, "/all_day"),
    ({"all_day": None}, "/all_day"),
    ({"timezone": "Mars/Olympus"}, "/timezone"),
    ({"timezone": "europe/berlin"}, "/timezone"),
    ({"timezone": "../../etc/passwd"}, "/timezone"),
    ({"timezone": "localtime"}, "/timezone"),
    ({"timezone": "Europe/Berlin\x00"}, "/timezone"),
    ({"timezone": ""}, "/timezone"),
    ({"timezone": 1}, "/timezone"),
    ({"assignee_ids": ["x"]}, "/assignee_ids/0"),
    ({"assignee_ids": [str(uuid4())]}, "/assignee_ids/0"),
    ({"assignee_ids": [1]}, "/assignee_ids/0"),
    ({"assignee_ids": "x"}, "/assignee_ids"),
    ({"assignee_ids": {}}, "/assignee_ids"),
    ({"assignee_ids": [str(uuid4())] * 51}, "/assignee_ids"),
    ({"reminders": {}}, "/reminders"),
    ({"reminders": [1]}, "/reminders/0"),
    ({"reminders": [{"offset_minutes": 5}, {}]}, "/reminders/1"),
    ({"reminders": [{"remind_at": "2030-01-01T00:00:00"}]}, "/reminders/0/remind_at"),
    ({"reminders": [{"remind_at": "2001-01-01T00:00:00Z"}]}, "/reminders/0/remind_at"),
    ({"reminders": [{"offset_minutes": 5, "unknown": 1}]}, "/reminders/0/unknown"),
    ({"due_at": None, "reminders": [{"offset_minutes": 5}]}, "/reminders/0/offset_minutes"),
    ({"unknown": 1}, "/unknown"),
    ({"id": str(uuid4())}, "/id"),
    ({"creator": None}, "/creator"),
    ({"": 1}, "/"),
    ({"title ": "x"}, "/title "),
    ({"__proto__": {}}, "/__proto__"),
]


async def test_bad_tasks_are_refused_whole(service: Service) -> None:
    alice = await service.person()
    made = await alice("POST", "/tasks", json=GOOD)
    assert made.status == 201
    path = f"/tasks/{made.json['id']}"
    for wrong, field in BAD_TASKS:
        for method, where, body in (
            ("POST", "/tasks", GOOD | wrong),
            ("PATCH", path, {"category": "Changed"} | wrong),
        ):
            answer = await alice(method, where, json=body)
            assert_problem(answer, 422, "validation_failed")
            assert field in [error["field"] for error in answer.json["errors"]], (body, answer.text)
    assert (await alice("GET", "/tasks?count=true")).json["total"] == 1
    assert (await alice("GET", path)).json == made.json
    assert (await alice("GET", path + "/reminders")).json["items"] == []


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize(
    "title",
    [
        "🏳️‍🌈👨‍👩‍👧‍👦",
        "שלום עולם",
        "\u202eevil\u202c",
        "مرحبا بالعالم",
        "é vs e\u0301",
        "𝕌𝕟𝕚",
        "ﷺ" * 200,
        "'; DROP TABLE task; --",
        "%s {0} ${x}",
        "\u2028",
        "\ufeffbom",
        "🦄" * 200,
    ],
)
async def test_any_text_comes_back_as_it_was(service: Service, title: str) -> None:
    alice = await service.person()
    if not title.strip():
        title += "x"
    made = await alice("POST", "/tasks", json={"title": title, "description": title + "\r\n\t" + title})
    assert made.status == 201, made.text
    got = (await alice("GET", made.headers["Location"].removeprefix("/api/v1"))).json
    assert got["title"] == title and got["description"] == title + "\r\n\t" + title


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize(
    ("due_at", "expected"),
    [
        ("2030-06-01t12:00:00z", "2030-06-01T12:00:00Z"),
        ("2030-06-01T12:00:00.5+02:00", "2030-06-01T10:00:00.500000Z"),
        ("2030-06-01T12:00:00.000Z", "2030-06-01T12:00:00Z"),
        ("2030-06-01T12:00:00-00:00", "2030-06-01T12:00:00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("2199-12-31T23:59:59.999999Z", "2199-12-31T23:59:59.999999Z"),
    ],
)
async def test_instants_that_are_taken(service: Service, due_at: str, expected: str) -> None:
    alice = await service.person()
    made = await alice("POST", "/tasks", json={"title": "T", "due_at": due_at})
    assert made.status == 201, made.text
    assert (await alice("GET", f"/tasks/{made.json['id']}")).json["due_at"] == made.json["due_at"] == expected


BAD_SIGNUPS: list[tuple[dict[str, Any], str]] = [
    ({"email": "nobody"}, "/email"),
    ({"email": "a@b@c.example"}, "/email"),
    ({"email": "a b@example.com"}, "/email"),
    ({"email": "a@example.com\r\nBcc: x@example.com"}, "/email"),
    ({"email": "a@" + "x" * 300 + ".com"}, "/email"),
    ({"email": None}, "/email"),
    ({"email": ""}, "/email"),
    ({"password": "zq9-k7"}, "/password"),
    ({"password": "x" * 129}, "/password"),
    ({"password": "password123"}, "/password"),
    ({"password": "BAD@Example.com"}, "/password"),
    ({"password": 1234567890123}, "/password"),
    ({"password": "correct\x00horse battery"}, "/password"),
    ({"name": ""}, "/name"),
    ({"name": "a\r\nb"}, "/name"),
    ({"name": "x" * 201}, "/name"),
    ({"timezone": None}, "/timezone"),
    ({"role": "admin"}, "/role"),
]


async def test_bad_signups(service: Service) -> None:
    good = {"email": "bad@example.com", "password": PASSWORD, "name": "B"}
    for wrong, field in BAD_SIGNUPS:
        answer = await service.nobody("POST", "/auth/signup", json=good | wrong)
        assert_problem(answer, 422, "validation_failed")
        assert field in [error["field"] for error in answer.json["errors"]], (wrong, answer.text)
        assert str(wrong.get("password", "?")) not in answer.text
    assert_problem(
        await service.nobody("POST", "/auth/login", json={"email": good["email"], "password": PASSWORD}),
        401,
        "bad_credentials",
    )


@pytest.mark.heavy(on="mariadb")
@pytest.mark.parametrize("email", ["\x00", "x" * 900, "a@b", "' OR 1=1 --", "🦄@🦄.example", "a@example.com\u2028"])
async def test_strange_logins_are_only_wrong(service: Service, email: str) -> None:
    answer = await service.nobody("POST", "/auth/login", json={"email": email, "password": "x"})
    assert answer.status in (401, 422) and answer.json["code"] in ("bad_credentials", "validation_failed")


async def test_tokens_that_are_none(service: Service) -> None:
    for token in ("x", "🦄", "pun_r_" + "A" * 43, "x" * 1000):
        assert_problem(
            await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": token}),
            401,
            "unauthenticated",
        )
        assert_problem(await service.nobody("POST", "/auth/verify-email", json={"token": token}), 422, "invalid_token")
