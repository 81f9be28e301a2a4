"""One's own data over HTTP: asked for, made by a worker, then streamed."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from uuid import UUID

import orjson
from sqlalchemy import select, update

from models import Activity, Run
from scheduler.accounts.export import KEPT, make_export
from scheduler.clock import now
from scheduler.runs.running import RunningJob
from scheduler.storage import Storage
from tests.web.conftest import Answer, Caller, Service, assert_problem

PATH = "/users/me/export"


@asynccontextmanager
async def storage_of(service: Service) -> AsyncIterator[Storage]:
    storage = Storage(service.settings.storage_url, service.settings.data_dir)
    yield storage
    storage.close()


async def make(service: Service, run_id: str) -> None:
    """What a worker does."""
    async with service.database.write() as session:
        begun = {"state": "running", "worker": "w", "seq": 1, "attempt": 1, "started_at": now()}
        await session.execute(update(Run).where(Run.id == UUID(run_id)).values(**begun))
        row = (await session.execute(select(Run.__table__).where(Run.id == UUID(run_id)))).one()
    run = RunningJob(
        id=row.id, job=row.job, trigger=row.trigger, attempt=1, started_at=now(), worker="w", owner_id=row.owner_id
    )
    async with storage_of(service) as storage:
        await make_export(service.database, storage=storage, run=run)


async def exported(service: Service, caller: Caller) -> Answer:
    answer = await caller("GET", PATH)
    assert answer.status == 202, answer.text
    await make(service, answer.json["id"])
    return await caller("GET", PATH)


async def test_first_it_is_made_and_then_it_is_there(service: Service) -> None:
    alice, bob = await service.person("Alice"), await service.person("Bob")
    task = (await alice("POST", "/tasks", json={"title": "Only Alice knows"})).json
    first = await alice("GET", PATH)
    assert first.status == 202 and int(first.headers["Retry-After"]) > 0
    run = first.json
    assert (run["job"], run["state"], run["trigger"]) == ("export_account", "queued", "event")
    assert first.headers["Location"] == f"/api/v1/runs/{run['id']}"
    assert (await alice("GET", "/" + first.headers["Location"])).json["id"] == run["id"]
    assert_problem(await bob("GET", "/" + first.headers["Location"]), 404, "not_found")
    again = await asyncio.gather(*(alice("GET", PATH) for _ in range(4)))
    assert {(answer.status, answer.json["id"]) for answer in again} == {(202, run["id"])}

    await make(service, run["id"])
    done = await alice("GET", PATH)
    assert done.status == 200
    assert done.headers["Content-Type"] == "application/zip"
    assert done.headers["Cache-Control"] == "no-store"
    assert done.headers["Content-Length"] == str(len(done.raw))
    disposition = f"punctual-{now():%Y-%m-%d}.zip"
    assert disposition in done.headers["Content-Disposition"] and "attachment" in done.headers["Content-Disposition"]
    archive = zipfile.ZipFile(BytesIO(done.raw))
    assert archive.testzip() is None
    [kept] = orjson.loads(archive.read("tasks.json"))
    assert kept["id"] == task["id"] and kept["title"] == "Only Alice knows"
    [account] = orjson.loads(archive.read("account.json"))
    assert account["email"] == alice.user["email"]
    assert [row["ip"] for row in orjson.loads(archive.read("sessions.json"))] == ["127.0.0.1"]
    assert alice.refresh_token.encode() not in b"".join(map(archive.read, archive.namelist()))

    part = await alice("GET", PATH, headers={"Range": "bytes=0-3"})
    assert (part.status, part.raw) == (206, b"PK\x03\x04")
    assert (await alice("GET", PATH, headers={"If-None-Match": done.headers["ETag"]})).status == 304
    head = await alice("HEAD", PATH)
    assert (head.status, head.raw, head.headers["Content-Length"]) == (200, b"", str(len(done.raw)))

    other = await exported(service, bob)
    assert b"Only Alice knows" not in b"".join(
        zipfile.ZipFile(BytesIO(other.raw)).read(name) for name in zipfile.ZipFile(BytesIO(other.raw)).namelist()
    )
    async with service.database.read() as session:
        query = select(Activity.action).where(Activity.actor_id == UUID(alice.user["id"]))
        assert (await session.execute(query)).scalars().all().count("export_requested") == 1


async def test_it_is_made_anew_after_its_day_or_when_it_is_lost(service: Service) -> None:
    alice = await service.person()
    first = await exported(service, alice)
    folder = service.settings.data_dir / "files" / "exports"
    [file] = [path for path in folder.rglob("*") if path.is_file()]
    file.unlink()
    second = await alice("GET", PATH)
    assert second.status == 202
    await make(service, second.json["id"])
    assert (await alice("GET", PATH)).headers["ETag"] != first.headers["ETag"]

    from models import AccountExport

    async with service.database.write() as session:
        await session.execute(update(AccountExport).values(expires_at=now() - KEPT))
    assert (await alice("GET", PATH)).status == 202


async def test_one_whose_run_was_cancelled_is_asked_for_anew(service: Service) -> None:
    alice = await service.person()
    run = (await alice("GET", PATH)).json
    assert (await alice("POST", f"/runs/{run['id']}/cancel")).status == 202
    again = await alice("GET", PATH)
    assert again.status == 202 and again.json["id"] != run["id"]


async def test_who_may_and_how(service: Service) -> None:
    assert_problem(await service.nobody("GET", PATH), 401, "unauthenticated")
    alice, admin = await service.person(), await service.admin()
    assert_problem(await alice("GET", PATH + "?x=1"), 422, "validation_failed")
    # Nobody else can have it made: only a person's own request can.
    asked = await admin("POST", "/admin/jobs/export_account/run", json={})
    assert_problem(asked, 422, "validation_failed")


async def test_a_large_one_is_streamed_past_the_patience_of_a_request(service: Service) -> None:
    """No transaction is open while it goes out, and the client sees the end when the file breaks off."""
    alice = await service.person()
    await exported(service, alice)
    folder = service.settings.data_dir / "files" / "exports"
    [file] = [path for path in folder.rglob("*") if path.is_file()]
    large = bytes(range(256)) * 4 * 8192  # 8 MiB
    file.write_bytes(large)
    address = f"{service.base}/api/v1{PATH}"
    async with service.session.get(address, headers={"Authorization": f"Bearer {alice.token}"}) as response:
        assert response.status == 200
        begun = await response.content.readexactly(1000)
        assert service.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert begun + await response.content.read() == large
