"""Every operation of the OpenAPI document, and a world in which each of them can be called.

Whoever adds a route adds nothing here, unless the route has a body without an example in the document (`BODIES`) or an
id of a new kind in its path (`PLACES`): the walk then fails and names it.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import aiohttp

from models import Email, Run
from models import Session as SignIn
from scheduler.access import Actor, Role
from scheduler.clock import now
from scheduler.identifiers import new_id
from tests.factories import add_person, add_rows, email_row
from tests.services.stored import set_
from tests.web.conftest import PASSWORD, Answer, Caller, Service, assert_problem
from web.app import openapi_document
from web.handlers import ROUTE_TABLES
from web.middlewares.idempotency import REPLAYED
from web.routing import Route

ALWAYS_THERE = ("X-Request-ID", "X-Content-Type-Options", "Referrer-Policy", "Content-Security-Policy", "Cache-Control")
RATE_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
ENDS_ITS_CALLER = frozenset({"logout", "change_password", "deactivate_me", "delete_me"})
"""Somebody is signed out by these."""
PARAMETER = re.compile(r"\{(\w+)\}")
JSON, FILE = "application/json", "multipart/form-data"

_numbers = itertools.count(1)
_routes: dict[str, Route] = {route.name: route for table in ROUTE_TABLES for route in table.routes}


class Operation(NamedTuple):
    """One operation of the document."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.described["operationId"])

    @property
    def route(self) -> Route:
        return _routes[self.name]

    @property
    def is_signed_in(self) -> bool:
        return bool(self.described["security"])

    @property
    def is_for_admins(self) -> bool:
        return self.route.auth == "admin"

    @property
    def is_counted(self) -> bool:
        return self.is_signed_in or self.route.password

    @property
    def ids(self) -> list[str]:
        """Those parts of the path that stand for something."""
        return PARAMETER.findall(self.path)

    @property
    def media_types(self) -> tuple[str, ...]:
        return tuple(self.described.get("requestBody", {}).get("content", {}))

    @property
    def takes_json(self) -> bool:
        return JSON in self.media_types

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.described.get("parameters", [])}

    def gives(self, header: str) -> bool:
        """Whether a 200 is described with this header."""
        return header in self.described["responses"].get("200", {}).get("headers", {})

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations() -> list[Operation]:
    """All of them; those last that sign somebody out."""
    found = [
        Operation(method.upper(), path, described)
        for path, item in openapi_document()["paths"].items()
        for method, described in item.items()
    ]
    return sorted(found, key=lambda each: each.name in ENDS_ITS_CALLER)


@dataclass
class World:
    """Alice, to whom things belong; Carol, who has nothing to do with them; Eve, who is an administrator."""

    service: Service
    alice: Caller
    carol: Caller
    eve: Caller
    answers: int = 0
    complaints: list[str] = field(default_factory=list)

    @classmethod
    async def create(cls, service: Service) -> World:
        return cls(service, await service.person("Alice"), await service.person("Carol"), await service.admin())

    def caller(self, operation: Operation) -> Caller:
        """Who may call it."""
        if not operation.is_signed_in:
            return self.service.nobody
        return self.eve if operation.is_for_admins else self.alice

    async def place(self, operation: Operation) -> str:
        """Its path, with ids of things that were made for this call."""
        path = operation.path
        for name in operation.ids:
            if name not in PLACES:
                raise AssertionError(f"{operation}: say in tests/web/walk.py how to make a {name}")
            path = path.replace(f"{{{name}}}", await PLACES[name](self))
        if operation.name in BEFORE:
            await BEFORE[operation.name](self, path)
        return path

    async def body(self, operation: Operation) -> dict[str, Any]:
        """What can be sent to it, as options for the client."""
        if FILE in operation.media_types:
            form = aiohttp.FormData()
            form.add_field("file", picture(), filename="picture.png", content_type="image/png")
            return {"data": form}
        if not operation.takes_json:
            return {}
        if operation.name in BODIES:
            return {"json": await BODIES[operation.name](self)}
        schema = operation.described["requestBody"]["content"][JSON]["schema"]
        if "$ref" in schema:
            schema = openapi_document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "examples" not in schema:
            raise AssertionError(f"{operation}: give its body an example, or say in tests/web/walk.py what to send")
        return {"json": dict(schema["examples"][0])}

    async def call(self, operation: Operation, caller: Caller, path: str, **options: Any) -> Answer:
        """Call it, and look at what every answer has."""
        answer = await caller(operation.method, "/" + path, **options)
        self.look_at(operation, caller, answer)
        return answer

    def look_at(self, operation: Operation, caller: Caller, answer: Answer) -> None:
        """Complain of whatever the conventions or the document do not allow."""
        self.answers += 1
        where = f"{operation} → {answer.status}"
        described = operation.described["responses"]
        self.expect(str(answer.status) in described, f"{where}: not in the document ({', '.join(described)})")
        self.expect(answer.status < 500 or operation.name == "get_readiness", f"{where}: {answer.text}")
        for name in ALWAYS_THERE:
            self.expect(name in answer.headers, f"{where}: lacks {name}")
        counts = operation.is_counted and (caller.token is not None or operation.route.password)
        for name in RATE_LIMITS:
            has = answer.headers.get(name, "").isdigit()
            self.expect(has == counts, f"{where}: {name} is {'there' if has else 'not there'}")
        # One that is given again speaks of the request that it was first given to.
        if answer.status >= 400 and operation.name != "get_readiness" and REPLAYED not in answer.headers:
            try:
                assert_problem(answer, answer.status, answer.json["code"])
            except (AssertionError, TypeError, KeyError) as error:
                self.complaints.append(f"{where}: no problem document: {error} {answer.text}")
            else:
                code, words = answer.json["code"], described.get(str(answer.status), {}).get("description", "")
                self.expect(f"`{code}`" in words, f"{where}: the document does not know {code}")

    def expect(self, holds: bool, complaint: str) -> None:
        """Note what does not hold; a walk goes on to its end, so that one look shows all of it."""
        if not holds and complaint not in self.complaints:
            self.complaints.append(complaint)

    def done(self) -> None:
        """Fail if anything was noted."""
        assert self.complaints == [], "\n".join(self.complaints)

    async def after(self, operation: Operation) -> None:
        """Whoever was signed out is somebody new, in whose name to go on."""
        if operation.name in ENDS_ITS_CALLER:
            self.alice = await self.service.person("Alice")


# -- what ids stand for --------------------------------------------------------------------------------------


async def _task(world: World) -> str:
    body = {"title": "Water the plants", "due_at": "2030-06-01T12:00:00Z", "assignee_ids": [world.alice.user["id"]]}
    return await _made(world.alice, "/tasks", body)


async def _reminder(world: World) -> str:
    return await _made(world.alice, f"/tasks/{await _task(world)}/reminders", {"remind_at": "2030-01-01T00:00:00Z"})


async def _schedule(world: World) -> str:
    task = {"type": "create_task", "task": {"title": "Water the plants"}}
    return await _made(world.alice, "/schedules", {"name": "S", "cron": "0 9 * * *", "timezone": "UTC", "action": task})


async def _run(world: World) -> str:
    return await _made(world.alice, f"/schedules/{await _schedule(world)}/run", None, status=202)


async def _person(world: World) -> str:
    return str((await add_person(world.service.database, f"person-{next(_numbers)}")).user_id)


async def _session(world: World) -> str:
    row = {"id": new_id(), "user_id": actor(world.alice).user_id, "ip": "::1", "user_agent": "", "ended_at": None}
    await add_rows(world.service.database, SignIn, [row | {"created_at": now(), "last_used_at": now()}])
    return str(row["id"])


async def _api_token(world: World) -> str:
    return await _made(world.alice, "/auth/tokens", {"name": "A program", "scopes": ["tasks:read"]})


async def _email(world: World) -> str:
    row = email_row(now(), state="dead", sent_at=None, attempts=9)
    await add_rows(world.service.database, Email, [row])
    return str(row["id"])


async def _job(world: World) -> str:
    return "cleanup"


PLACES: dict[str, Callable[[World], Awaitable[str]]] = {
    "task_id": _task,
    "reminder_id": _reminder,
    "schedule_id": _schedule,
    "run_id": _run,
    "user_id": _person,
    "session_id": _session,
    "token_id": _api_token,
    "email_id": _email,
    "name": _job,
}


async def _made(caller: Caller, path: str, body: dict[str, Any] | None, *, status: int = 201) -> str:
    answer = await caller("POST", path, json=body)
    assert answer.status == status, answer.text
    return str(answer.json["id"])


def actor(caller: Caller) -> Actor:
    """Who a caller is to the services."""
    return Actor(user_id=UUID(caller.user["id"]), role=Role(caller.user["role"]))


# -- what must have happened before --------------------------------------------------------------------------


async def _have_picture(world: World, _: str) -> None:
    form = aiohttp.FormData()
    form.add_field("file", picture(), filename="p.png", content_type="image/png")
    assert (await world.alice("PUT", "/users/me/avatar", data=form)).status == 200


async def _have_finished(world: World, path: str) -> None:
    """A run that ended can be retried."""
    run_id = UUID(path.split("/")[-2])
    await set_(world.service.database, Run, run_id, state="failed", finished_at=now())


async def _have_in_bin(world: World, path: str) -> None:
    assert (await world.alice("DELETE", "/" + path.removesuffix("/restore").removeprefix("/api/v1/"))).status == 204


async def _have_assignee(world: World, path: str) -> None:
    task, _, person = path.removeprefix("/api/v1").rpartition("/")
    assert (await world.alice("POST", task, json={"user_id": person})).status == 200


async def _have_share(world: World, path: str) -> None:
    task, _, person = path.removeprefix("/api/v1").rpartition("/")
    assert (await world.alice("POST", task, json={"user_id": person, "permission": "view"})).status == 200


BEFORE: dict[str, Callable[[World, str], Awaitable[None]]] = {
    "remove_my_avatar": _have_picture,
    "get_my_avatar": _have_picture,
    "retry_run": _have_finished,
    "restore_task": _have_in_bin,
    "unassign_task": _have_assignee,
    "unshare_task": _have_share,
}


# -- bodies --------------------------------------------------------------------------------------------------


def _fixed(**body: Any) -> Callable[[World], Awaitable[dict[str, Any]]]:
    async def make(_: World) -> dict[str, Any]:
        return body

    return make


async def _own_login(world: World) -> dict[str, Any]:
    return {"email": world.carol.user["email"], "password": PASSWORD}


async def _new_account(world: World) -> dict[str, Any]:
    return {"email": f"new-{next(_numbers)}@example.com", "password": PASSWORD, "name": "New"}


async def _invited(world: World) -> dict[str, Any]:
    return {"email": f"invited-{next(_numbers)}@example.com", "name": "Invited"}


async def _own_refresh_token(world: World) -> dict[str, Any]:
    return {"refresh_token": world.carol.refresh_token}


async def _somebody(world: World) -> dict[str, Any]:
    return {"user_id": await _person(world)}


async def _shared_with_somebody(world: World) -> dict[str, Any]:
    return {"user_id": await _person(world), "permission": "view"}


async def _yesterday(world: World) -> dict[str, Any]:
    until = now().replace(microsecond=0)
    return {"from": (until - timedelta(days=1)).isoformat(), "until": until.isoformat()}


BODIES: dict[str, Callable[[World], Awaitable[dict[str, Any]]]] = {
    "signup": _new_account,
    "login": _own_login,
    "refresh_token": _own_refresh_token,
    "reset_password": _fixed(token="none", password="another long passphrase"),
    "verify_email": _fixed(token="none"),
    "create_user": _invited,
    "change_user": _fixed(name="Changed"),
    "assign_task": _somebody,
    "share_task": _shared_with_somebody,
    "add_reminder": _fixed(offset_minutes=45, audience="me"),
    "backfill_schedule": _yesterday,
}
"""Instead of the document's example, where only this world knows what to send."""


def unknown_ids(path: str, wrong: str | None = None) -> str:
    """The path of an operation with ids that nothing has."""
    return PARAMETER.sub(lambda _: wrong or str(uuid4()), path)


def paths(found: Sequence[Operation]) -> dict[str, set[str]]:
    """The methods of each path; one without an id in it may be that of an id as well (`/users/me`)."""
    methods: dict[str, set[str]] = {operation.path: set() for operation in found}
    for operation in found:
        template = re.compile(PARAMETER.sub("[^/]+", operation.path))
        for path, its_methods in methods.items():
            if path == operation.path or ("{" not in path.rpartition("/")[2] and template.fullmatch(path)):
                its_methods.add(operation.method)
    return methods


def picture(side: int = 2) -> bytes:
    """A small PNG (W3C PNG, 5 and 11), made by hand: red all over."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xff\0\0" * side) * side
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
