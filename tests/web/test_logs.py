"""The log over HTTP."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from models import LogRecord
from scheduler.clock import format_instant, now
from scheduler.identifiers import new_id
from tests.factories import add_rows
from tests.rules.process_logging import process_logging
from tests.web.conftest import Service, assert_problem

RUN, PERSON = new_id(), new_id()


def record(number: int, **columns: Any) -> dict[str, Any]:
    """What was logged so many minutes ago."""
    return {
        "id": new_id(),
        "at": now().replace(microsecond=0) - timedelta(minutes=number),
        "level": "info",
        "event": "run.succeeded",
        "logger": "runs",
        "request_id": None,
        "run_id": None,
        "job": None,
        "user_id": None,
        "data": {},
    } | columns


RECORDS: list[dict[str, Any]] = [
    {"level": "debug", "event": "a.detail"},
    {"run_id": RUN, "job": "reap", "data": {"duration_ms": 12}},
    {"level": "warning", "event": "email.deferred", "data": {"error": "450 Greylisted, Grüße"}},
    {"level": "error", "event": "run.failed", "run_id": RUN, "job": "cleanup", "request_id": "req-1"},
    {"event": "security.signed_in", "user_id": PERSON, "request_id": "req-1"},
    {"level": "critical", "event": "e"},
]


async def test_every_filter(service: Service) -> None:
    admin = await service.admin()
    # Ids are made as things happen: the oldest first.
    rows = [record(number, **RECORDS[number]) for number in reversed(range(len(RECORDS)))][::-1]
    await add_rows(service.database, LogRecord, rows)
    since, until = (format_instant(rows[number]["at"]) for number in (4, 1))
    for query, numbers in (
        ("", [0, 1, 2, 3, 4, 5]),
        ("level=debug", [0, 1, 2, 3, 4, 5]),
        ("level=info", [1, 2, 3, 4, 5]),
        ("level=warning", [2, 3, 5]),
        ("level=critical", [5]),
        ("event=run.failed", [3]),
        ("event=run.failed&event=e", [3, 5]),
        ("job=reap", [1]),
        ("job=reap&job=cleanup&level=error", [3]),
        (f"run_id={RUN}", [1, 3]),
        (f"run_id={RUN}&level=warning", [3]),
        ("request_id=req-1", [3, 4]),
        (f"user_id={PERSON}", [4]),
        (f"since={since}&until={until}", [2, 3, 4]),
        ("q=greylisted", [2]),
        ("q=grüße", [2]),
        ("q=RUN.", [1, 3]),
        ("q=%25", []),
        (f"run_id={uuid4()}", []),
    ):
        answer = await admin("GET", f"/admin/logs?{query}{'&' if query else ''}count=true")
        assert answer.status == 200, answer.text
        assert [each["id"] for each in answer.json["items"]] == [str(rows[number]["id"]) for number in numbers], query
        assert answer.json["total"] == len(numbers)
    shown = (await admin("GET", "/admin/logs?event=run.failed")).json["items"][0]
    assert shown == {
        "id": str(rows[3]["id"]),
        "at": format_instant(rows[3]["at"]),
        "level": "error",
        "event": "run.failed",
        "logger": "runs",
        "request_id": "req-1",
        "run_id": str(RUN),
        "job": "cleanup",
        "user_id": None,
        "data": {},
    }
    first = await admin("GET", "/admin/logs?limit=4")
    assert first.headers["Link"].endswith('rel="next"')
    rest = await admin("GET", f"/admin/logs?limit=4&cursor={first.json['next_cursor']}")
    assert [each["id"] for each in first.json["items"] + rest.json["items"]] == [str(row["id"]) for row in rows]
    assert rest.json["next_cursor"] is None


async def test_filters_that_are_none(service: Service) -> None:
    admin = await service.admin()
    for wrong, field in (
        ("level=loud", "?level"),
        ("level=info&level=error", "?level"),
        ("event=", "?event"),
        ("run_id=x", "?run_id"),
        ("user_id=1", "?user_id"),
        ("request_id=", "?request_id"),
        ("since=yesterday", "?since"),
        ("until=2026-01-01T00:00:00", "?until"),
        ("q=", "?q"),
        ("q=%00", "?q"),
        ("logger=l", "?logger"),
    ):
        answer = await admin("GET", f"/admin/logs?{wrong}")
        assert_problem(answer, 422, "validation_failed")
        assert answer.json["errors"][0]["field"] == field
    assert_problem(await admin("GET", "/admin/logs?cursor=W10"), 400, "bad_cursor")


async def test_what_the_api_itself_tells_of_security_is_found_there(service: Service) -> None:
    admin, alice = await service.admin(), await service.person()
    with process_logging():
        path = f"/admin/users/{alice.user['id']}/sessions/revoke"
        assert (await admin("POST", path, headers={"X-Request-ID": "out"})).status == 204
        found: list[dict[str, Any]] = []
        for _ in range(100):
            found = (await admin("GET", "/admin/logs?event=security.sessions_revoked")).json["items"]
            if found:
                break
            await asyncio.sleep(0.1)
    assert [(each["user_id"], each["request_id"]) for each in found] == [(alice.user["id"], "out")]
    assert found[0]["data"]["by_user_id"] == admin.user["id"] and UUID(found[0]["id"])
