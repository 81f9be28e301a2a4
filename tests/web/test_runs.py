"""Runs over HTTP: one's own, and for administrators everybody's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from models import LogRecord, Run, RunAttempt
from models.run import RunState
from scheduler.clock import format_instant, now
from scheduler.identifiers import new_id
from tests.factories import add_rows, run_row
from tests.services.stored import one
from tests.web.conftest import Caller, Service, assert_problem

ERROR = {"type": "ValueError", "message": "no", "traceback": "Traceback (most recent call last): secret_function()"}


async def add_run(service: Service, owner: Caller | None = None, **columns: Any) -> str:
    """A run in the database; returns its id."""
    row = run_row(now(), owner_id=UUID(owner.user["id"]) if owner else None, **columns)
    await add_rows(service.database, Run, [row])
    return str(row["id"])


async def test_the_states_that_clients_see(service: Service) -> None:
    admin = await service.admin()
    for state in RunState:
        await add_run(service, state=state.value)
    every = (await admin("GET", "/admin/runs?count=true")).json
    assert every["total"] == len(RunState)
    shown = [run["state"] for run in every["items"]]
    assert sorted(set(shown)) == ["cancelled", "failed", "lost", "queued", "running", "skipped", "succeeded"]
    assert shown.count("queued") == 5
    for state in set(shown):
        found = (await admin("GET", f"/admin/runs?state={state}&count=true")).json
        assert {run["state"] for run in found["items"]} == {state}
        assert found["total"] == len(found["items"]) == shown.count(state)
    assert_problem(await admin("GET", "/admin/runs?state=dispatched"), 422, "validation_failed")


async def test_a_run_in_full(service: Service) -> None:
    admin, alice = await service.admin(), await service.person()
    began = now() - timedelta(seconds=9)
    run_id = await add_run(
        service,
        alice,
        job="run_schedule",
        state="failed",
        attempt=2,
        max_attempts=3,
        duration_ms=1500,
        worker="box-1",
        progress_done=3,
        progress_total=9,
        result={"status": 500},
        error=ERROR,
        request_id="req-1",
    )
    first = {
        "run_id": UUID(run_id),
        "seq": 0,
        "number": 1,
        "state": "lost",
        "worker": "box-0",
        "started_at": began,
        "finished_at": began + timedelta(seconds=1),
        "error": None,
    }
    await add_rows(service.database, RunAttempt, [first])
    got = await admin("GET", f"/admin/runs/{run_id}")
    run = got.json
    assert run["state"] == "failed" and run["error"] == ERROR and run["worker"] == "box-1"
    assert run["progress"] == {"done": 3, "total": 9} and run["duration_ms"] == 1500
    assert run["owner_id"] == alice.user["id"] and run["request_id"] == "req-1"
    assert [(each["number"], each["state"], each["worker"]) for each in run["attempts"]] == [
        (1, "lost", "box-0"),
        (2, "failed", "box-1"),
    ]
    assert run["attempts"][1]["error"] == ERROR
    again = await admin("GET", f"/admin/runs/{run_id}", headers={"If-None-Match": got.headers["ETag"]})
    assert again.status == 304 and again.raw == b""

    own = (await alice("GET", f"/runs/{run_id}")).json
    assert own["error"] == {**ERROR, "traceback": None} and own["worker"] is None
    assert own["result"] == {"status": 500} and "attempts" not in own
    listed = (await alice("GET", "/runs?count=true")).json
    assert listed == {"items": [own], "next_cursor": None, "total": 1}
    assert "secret_function" not in (await alice("GET", "/runs")).text


async def test_what_others_caused_is_not_there(service: Service) -> None:
    alice, carol, admin = await service.person("Alice"), await service.person("Carol"), await service.admin()
    run_id = await add_run(service, alice, state="queued")
    await add_run(service, None)
    assert (await carol("GET", "/runs")).json["items"] == (await admin("GET", "/runs")).json["items"] == []
    for each in (run_id, str(uuid4()), "x", "%00"):
        for caller in (carol, admin):
            assert_problem(await caller("GET", f"/runs/{each}"), 404, "not_found")
            assert_problem(await caller("POST", f"/runs/{each}/cancel"), 404, "not_found")
    assert (await one(service.database, Run, Run.id == UUID(run_id))).state == "queued"


async def test_cancelling(service: Service) -> None:
    alice, admin = await service.person(), await service.admin()
    for caller, prefix in ((alice, "/runs"), (admin, "/admin/runs")):
        queued = await add_run(service, alice, state="queued", finished_at=None, started_at=None, attempt=0)
        done = await caller("POST", f"{prefix}/{queued}/cancel")
        assert done.status == 202 and done.json["state"] == "cancelled" and done.json["finished_at"]
        assert_problem(await caller("POST", f"{prefix}/{queued}/cancel"), 409, "already_finished")
        running = await add_run(service, alice, state="running", finished_at=None)
        asked = await caller("POST", f"{prefix}/{running}/cancel")
        assert asked.status == 202 and asked.json["state"] == "running"
        assert (await one(service.database, Run, Run.id == UUID(running))).cancel_requested_at is not None


async def test_retrying(service: Service) -> None:
    admin, alice = await service.admin(), await service.person()
    failed = await add_run(service, alice, job="run_schedule", state="failed", error=ERROR, arguments={"a": 1})
    answer = await admin("POST", f"/admin/runs/{failed}/retry", headers={"X-Request-ID": "mine"})
    assert answer.status == 202
    new = answer.json
    assert answer.headers["Location"] == f"/api/v1/admin/runs/{new['id']}"
    assert new["retry_of"] == failed and new["trigger"] == "retry" and new["state"] == "queued" and new["attempt"] == 0
    assert new["request_id"] == "mine" and new["owner_id"] == alice.user["id"]
    stored = await one(service.database, Run, Run.id == UUID(new["id"]))
    assert stored.arguments == {"a": 1}
    assert_problem(await admin("POST", f"/admin/runs/{new['id']}/retry"), 409, "not_finished")
    gone = await add_run(service, job="of_an_older_version")
    assert_problem(await admin("POST", f"/admin/runs/{gone}/retry"), 409, "unknown_job")
    assert_problem(await admin("POST", f"/admin/runs/{uuid4()}/retry"), 404, "not_found")


async def test_filters_and_pages(service: Service) -> None:
    admin = await service.admin()
    at = now().replace(microsecond=0)
    rows = [
        run_row(
            at - timedelta(minutes=number), job=("reap", "cleanup")[number % 2], trigger=("cron", "event")[number > 5]
        )
        for number in range(10)
    ]
    await add_rows(service.database, Run, rows)
    ids = [str(row["id"]) for row in rows]

    async def listed(query: str) -> list[str]:
        found, path = [], f"/admin/runs?limit=3&{query}"
        while True:
            page = await admin("GET", path)
            assert page.status == 200, page.text
            found += [run["id"] for run in page.json["items"]]
            if page.json["next_cursor"] is None:
                return found
            path = page.headers["Link"].split(">")[0].removeprefix("</api/v1")

    assert await listed("") == ids
    assert await listed("job=reap") == ids[::2]
    assert await listed("job=reap&job=cleanup&job=none") == ids
    assert await listed("trigger=event&job=reap") == ids[6::2]
    since, until = (format_instant(at - timedelta(minutes=minutes)) for minutes in (7, 3))
    assert await listed(f"since={since}&until={until}") == ids[4:8]
    for wrong, field in (
        ("since=2026-01-01T00:00:00", "?since"),
        ("until=x", "?until"),
        ("trigger=timer", "?trigger"),
        ("job=", "?job"),
        ("job=a%00", "?job"),
        ("owner=x", "?owner"),
    ):
        answer = await admin("GET", f"/admin/runs?{wrong}")
        assert_problem(answer, 422, "validation_failed")
        assert answer.json["errors"][0]["field"] == field
    assert_problem(await admin("GET", "/admin/runs?cursor=W10"), 400, "bad_cursor")


async def test_the_records_of_a_run(service: Service) -> None:
    admin = await service.admin()
    run_id, at = await add_run(service), now()
    events = [("info", "run.started", {}), ("warning", "email.deferred", {"error": "Greylisted"}), ("error", "e", {})]
    rows = [
        {
            "id": new_id(),
            "at": at,
            "level": level,
            "event": event,
            "logger": "l",
            "run_id": UUID(run_id),
            "data": data,
        }
        for level, event, data in events
    ]
    await add_rows(service.database, LogRecord, rows)
    path = f"/admin/runs/{run_id}/logs"
    records = (await admin("GET", f"{path}?limit=2&count=true")).json
    assert [record["event"] for record in records["items"]] == ["e", "email.deferred"] and records["total"] == 3
    rest = (await admin("GET", f"{path}?limit=2&cursor={records['next_cursor']}")).json
    assert [record["event"] for record in rest["items"]] == ["run.started"] and rest["next_cursor"] is None
    assert len((await admin("GET", f"{path}?level=warning")).json["items"]) == 2
    assert [each["level"] for each in (await admin("GET", f"{path}?q=greyLISTED")).json["items"]] == ["warning"]
    assert_problem(await admin("GET", f"/admin/runs/{uuid4()}/logs"), 404, "not_found")
    assert_problem(await admin("GET", f"{path}?level=loud"), 422, "validation_failed")
