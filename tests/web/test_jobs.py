"""Jobs over HTTP: what there is, when it runs, running one now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from models import Run
from scheduler.clock import now
from scheduler.runs.jobs import JOBS
from scheduler.runs.statistics import percentile
from tests.factories import add_rows, run_row
from tests.services.stored import one, statements
from tests.web.conftest import Service, assert_problem


async def test_every_job_and_how_it_has_been_doing(service: Service) -> None:
    admin = await service.admin()
    at = now()
    rows = [run_row(at - timedelta(minutes=number), duration_ms=number) for number in range(1, 101)]
    rows += [run_row(at - timedelta(seconds=1), state=state) for state in ("queued", "failed", "lost", "skipped")]
    rows += [run_row(at - timedelta(hours=25), state="failed", duration_ms=10**6)]
    rows += [run_row(at, job="of_an_older_version", state="failed")]
    newest = run_row(at, state="running", duration_ms=None, finished_at=None)
    await add_rows(service.database, Run, [*rows, newest])
    page = (await admin("GET", "/admin/jobs?count=true")).json
    assert page["next_cursor"] is None and page["total"] == len(JOBS)
    jobs = {job["name"]: job for job in page["items"]}
    assert list(jobs) == sorted(JOBS)
    cleanup = jobs["cleanup"]
    assert cleanup["stats"] == {"runs_24h": 105, "failures_24h": 2, "p50_ms": 50, "p99_ms": 99}
    assert cleanup["last_run"]["id"] == str(newest["id"]) and cleanup["last_run"]["state"] == "running"
    assert cleanup["cron"] == JOBS["cleanup"].cron and cleanup["enabled"] and cleanup["timezone"] == "UTC"
    assert cleanup["next_run_at"] and cleanup["description"] and cleanup["args_schema"]["type"] == "object"
    schedules = jobs["run_schedule"]
    assert schedules["cron"] is None and schedules["next_run_at"] is None and schedules["last_run"] is None
    assert schedules["stats"] == {"runs_24h": 0, "failures_24h": 0, "p50_ms": None, "p99_ms": None}
    assert jobs["send_reminders"]["next_run_at"]

    assert (await admin("GET", "/admin/jobs/cleanup")).json == cleanup
    for unknown in ("none", "of_an_older_version", "%00", "..", "CLEANUP", "🦄"):
        assert_problem(await admin("GET", f"/admin/jobs/{unknown}"), 404, "not_found")
    first = (await admin("GET", "/admin/jobs?limit=2")).json
    second = (await admin("GET", f"/admin/jobs?limit=200&cursor={first['next_cursor']}")).json
    assert [job["name"] for job in first["items"] + second["items"]] == sorted(JOBS)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, None), ([7], 1, 7), ([7], 99, 7), ([1, 2], 50, 1), ([3, 1, 2], 99, 3), (list(range(1, 201)), 99, 198)],
)
def test_percentiles_are_by_nearest_rank(values: list[int], percent: int, expected: int | None) -> None:
    assert percentile(values, percent) == expected


async def test_they_cost_a_fixed_number_of_statements(service: Service) -> None:
    admin = await service.admin()
    await admin("GET", "/admin/jobs")  # who this is, is known from here on
    costs = set()
    for count in (1, 50):
        await add_rows(service.database, Run, [run_row(now(), job=job) for job in JOBS for _ in range(count)])
        for path in ("/admin/jobs", "/admin/jobs?limit=1", "/admin/jobs/cleanup"):
            with statements(service.database) as seen:
                assert (await admin("GET", path)).status == 200
            costs.add(len(seen))
    assert len(costs) == 1


async def test_changing_when_a_job_runs(service: Service) -> None:
    admin = await service.admin()
    path = "/admin/jobs/cleanup"
    before = await admin("GET", path)
    etag = before.headers["ETag"]
    assert (await admin("GET", path, headers={"If-None-Match": etag})).status == 304
    assert_problem(
        await admin("PATCH", path, json={"enabled": False}, headers={"If-Match": '"other"'}), 412, "precondition_failed"
    )
    # What changes by itself meanwhile is nobody's change.
    await add_rows(service.database, Run, [run_row(now())])
    assert (await admin("GET", path, headers={"If-None-Match": etag})).status == 200
    paused = await admin("PATCH", path, json={"enabled": False}, headers={"If-Match": etag})
    assert paused.status == 200 and paused.json["enabled"] is False and paused.json["next_run_at"] is None
    assert paused.headers["ETag"] != etag
    assert_problem(
        await admin("PATCH", path, json={"enabled": True}, headers={"If-Match": etag}), 412, "precondition_failed"
    )
    changed = await admin("PATCH", path, json={"cron": "0 5 * * *", "enabled": True})
    assert changed.json["cron"] == "0 5 * * *" and changed.json["next_run_at"].endswith("T05:00:00Z")
    assert (await admin("PATCH", path, json={})).json == changed.json
    assert (await admin("GET", path)).json == changed.json

    wrong: list[tuple[str, dict[str, Any], str]] = [
        (path, {"cron": "every day"}, "/cron"),
        (path, {"cron": "0 0 31 2 *"}, "/cron"),
        (path, {"cron": None}, "/cron"),
        (path, {"cron": ""}, "/cron"),
        (path, {"cron": 5}, "/cron"),
        (path, {"enabled": None}, "/enabled"),
        (path, {"enabled": "no"}, "/enabled"),
        (path, {"timezone": "UTC"}, "/timezone"),
        ("/admin/jobs/run_schedule", {"cron": "0 5 * * *"}, "/cron"),
    ]
    for where, body, field in wrong:
        answer = await admin("PATCH", where, json=body)
        assert_problem(answer, 422, "validation_failed")
        assert [error["field"] for error in answer.json["errors"]] == [field], body
    assert_problem(await admin("PATCH", "/admin/jobs/none", json={"enabled": True}), 404, "not_found")
    assert (await admin("GET", path)).json == changed.json


@pytest.mark.heavy(on="mariadb")
async def test_running_a_job_now(service: Service) -> None:
    admin, other = await service.admin(), await service.admin()
    path = "/admin/jobs/reap/run"
    answer = await admin("POST", path, headers={"X-Request-ID": "asked"})
    assert answer.status == 202, answer.text
    run = answer.json
    assert (run["job"], run["trigger"], run["state"], run["request_id"]) == ("reap", "manual", "queued", "asked")
    assert (await admin("GET", answer.headers["Location"].removeprefix("/api/v1"))).json["id"] == run["id"]
    json = {"Content-Type": "application/json"}
    bodies: list[dict[str, Any]] = [{}, {"args": {}}]
    for body in bodies:
        assert (await admin("POST", path, json=body)).status == 202
    for empty in (b"", b" \n"):
        assert (await admin("POST", path, data=empty, headers=json)).status == 202

    key = {"Idempotency-Key": "the same"}
    first = (await admin("POST", path, headers=key)).json
    assert first["id"] != run["id"]
    assert (await admin("POST", path, headers=key)).json == first
    other_body = await admin("POST", path, headers=key, json={"args": {}})
    assert_problem(other_body, 422, "idempotency_key_reused")
    assert (await other("POST", path, headers=key)).json["id"] != first["id"]
    assert_problem(await admin("POST", "/admin/jobs/cleanup/run", headers=key), 422, "idempotency_key_reused")
    assert (await admin("GET", "/admin/runs?job=cleanup")).json["items"] == []
    for bad in ("", "x" * 256, "é", "a\tb"):
        assert_problem(await admin("POST", path, headers={"Idempotency-Key": bad}), 400, "bad_request")

    # A job that is declared unique has one run at a time.
    one_run = (await admin("POST", "/admin/jobs/cleanup/run")).json
    assert (await admin("POST", "/admin/jobs/cleanup/run")).json["id"] == one_run["id"]
    assert (await one(service.database, Run, Run.id == UUID(one_run["id"]))).state == "queued"

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"args": {"x": 1}}, "/args/x"),
        ({"args": []}, "/args"),
        ({"args": None}, "/args"),
        ({"arguments": {}}, "/arguments"),
    ]
    for body, field in wrong:
        refused = await admin("POST", path, json=body)
        assert_problem(refused, 422, "validation_failed")
        assert refused.json["errors"][0]["field"] == field
    assert_problem(await admin("POST", path, data=b"{}"), 415, "unsupported_media_type")
    assert_problem(await admin("POST", path, data=b"{", headers=json), 400, "malformed_body")
    assert_problem(await admin("POST", "/admin/jobs/none/run"), 404, "not_found")
