"""A person's whole life with the service, over HTTP and through the jobs, and what is left of it once they are gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from models import LogRecord, Task, User
from scheduler.accounts.deletion import GRACE
from scheduler.accounts.erasure import SETTLED, erase_accounts
from scheduler.accounts.login_lock import address_digest
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.runs.running import RunningJob
from scheduler.settings import Settings
from scheduler.storage import FOLDER, Storage
from tests.rules.process_logging import process_logging
from tests.services.stored import count, everything_stored, holding, one, rows
from tests.web.conftest import PASSWORD, Answer, Caller, Service, start
from tests.web.walk import picture

NAME, ADDRESS, OTHER_ADDRESS = "Zephyrine Quillfeather", "zephyrine@quill.example", "zephyrine@other.example"
PHONE, IP, PROGRAM = "+4930901820", "198.51.100.77", "Quillbrowser/7"
MARKS = ("zephyrine", "quill", PHONE.strip("+"), IP)

Leave = Callable[[Caller, Caller], Awaitable[Answer]]


def through_a_proxy(caller: Caller) -> Caller:
    """As somebody far away with a program of their own."""

    class Far(Caller):
        async def __call__(self, method: str, path: str, **options: Any) -> Answer:
            headers = {"X-Forwarded-For": IP, "User-Agent": PROGRAM} | dict(options.pop("headers", {}))
            return await super().__call__(method, path, headers=headers, **options)

    return Far(caller.base, caller.session, caller.token, caller.user, caller.refresh_token)


async def live(service: Service, admin: Caller, bob: Caller) -> Caller:
    """All that leaves traces. Returns the person, signed in."""
    nobody = through_a_proxy(service.nobody)

    async def do(caller: Caller, method: str, path: str, *statuses: int, **options: Any) -> Any:
        answer = await caller(method, path, **options)
        assert answer.status in statuses, (method, path, answer.text)
        return answer.json

    signup = {"email": ADDRESS, "password": PASSWORD, "name": NAME}
    tokens = await do(nobody, "POST", "/auth/signup", 201, json=signup)
    await do(nobody, "POST", "/auth/login", 401, json={"email": ADDRESS, "password": "wrong" * 3})
    await do(nobody, "POST", "/auth/forgot-password", 202, json={"email": ADDRESS})
    her = through_a_proxy(Caller(nobody.base, nobody.session, tokens["access_token"], tokens["user"]))
    profile = {"bio": f"I am {NAME}", "phone": PHONE, "timezone": "Europe/Berlin", "locale": "de"}
    await do(her, "PATCH", "/users/me", 200, json=profile)
    await do(her, "POST", "/users/me/email", 202, json={"email": OTHER_ADDRESS, "password": PASSWORD})
    await do(her, "POST", "/auth/tokens", 201, json={"name": f"{NAME}'s", "scopes": ["tasks:read"]})
    await do(her, "POST", "/auth/enable-2fa", 200)
    form = aiohttp.FormData()
    form.add_field("file", picture(), filename="quill.png", content_type="image/png")
    await do(her, "PUT", "/users/me/avatar", 200, data=form)
    await do(her, "GET", "/users/me/export", 202)
    alone = {"title": f"Thank {NAME}", "reminders": [{"remind_at": "2199-01-01T00:00:00Z"}]}
    await do(her, "POST", "/tasks", 201, json=alone, headers={"Idempotency-Key": "quill"})
    shared = await do(her, "POST", "/tasks", 201, json={"title": "Move house", "assignee_ids": [her.user["id"]]})
    share = {"user_id": bob.user["id"], "permission": "edit"}
    await do(her, "POST", f"/tasks/{shared['id']}/share", 200, json=share)
    mine = await do(bob, "POST", "/tasks", 201, json={"title": "Paint", "assignee_ids": [her.user["id"]]})
    private = {"remind_at": "2199-01-01T00:00:00Z", "audience": "me"}
    await do(her, "POST", f"/tasks/{mine['id']}/reminders", 201, json=private)
    action = {"type": "http_request", "method": "POST", "url": "https://quill.example/", "body": ADDRESS}
    schedule = {"name": f"{NAME}'s", "cron": "0 9 * * *", "action": action}
    made = await do(her, "POST", "/schedules", 201, json=schedule)
    await do(her, "POST", f"/schedules/{made['id']}/run", 202)
    await do(admin, "PATCH", f"/users/{her.user['id']}", 200, json={"name": f"{NAME} jr.", "role": "manager"})
    return her


async def give_up(admin: Caller, her: Caller) -> Answer:
    return await her("DELETE", "/users/me", json={"password": PASSWORD})


async def be_deleted(admin: Caller, her: Caller) -> Answer:
    return await admin("DELETE", f"/users/{her.user['id']}")


@pytest.mark.parametrize("leave", [give_up, be_deleted])
async def test_nothing_is_left_that_says_who_it_was(
    settings: Settings, database: Database, service: Service, leave: Leave
) -> None:
    with process_logging(env="development"):
        proxied = settings.model_copy(update={"trusted_proxies": ("127.0.0.1", "::1")})
        runner, service.base = await start(proxied, database)
        service.nobody.base = service.base
        admin, bob = await service.quick_person("Eve", role="admin"), await service.quick_person("Bob")
        her = await live(service, admin, bob)
        answer = await leave(admin, her)
        assert answer.status in (202, 204), answer.text
        await runner.cleanup()  # what it still held of the log is stored
    user_id = UUID(her.user["id"])
    before = await everything_stored(database)
    for mark in MARKS:
        assert holding(before, mark.encode()), f"nothing of {mark} to be erased: this would prove nothing"
    assert await count(database, LogRecord, LogRecord.user_id == user_id) > 5

    storage = Storage(settings.storage_url, settings.data_dir)
    try:
        for at in (now() + GRACE, now() + GRACE + SETTLED):
            job = RunningJob(id=new_id(), job="erase_accounts", trigger="cron", attempt=1, started_at=at, worker="w")
            assert (await erase_accounts(database, storage=storage, run=job, now=at))["left"] == 0
    finally:
        storage.close()
    stored = await everything_stored(database)
    # What a task says, and its history, stay with it, where tasks stay.
    words = {"task.title", "activity.changes"} if leave is be_deleted else set()
    for needle in (*(mark.encode() for mark in MARKS), PROGRAM.encode(), address_digest(ADDRESS)):
        assert holding(stored, needle) <= words, needle
    assert not [path for path in (settings.data_dir / FOLDER).rglob("*") if path.is_file()]
    left = await one(database, User, User.id == user_id)
    assert (left.status, left.deletion_requested_at) == ("erased", None)
    assert {row.title for row in await rows(database, Task)} - {f"Thank {NAME}"} == {"Move house", "Paint"}
    assert await count(database, Task) == (2 if leave is give_up else 3)
