"""What a person's schedule does: a task is created once, a request is sent within bounds; both say what went wrong."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete

from models import Reminder, Run, Task, TaskAssignee, User
from models.run import RunState
from scheduler.access import Actor
from scheduler.clock import format_instant
from scheduler.database import Database
from scheduler.errors import Invalid
from scheduler.http_requests.addresses import Address
from scheduler.http_requests.client import HttpRequests
from scheduler.identifiers import new_id
from scheduler.runs.jobs import Job
from scheduler.runs.running import JobFailed, RunningJob, RunTaken
from scheduler.runs.settle import Outcome, check_result, settle
from scheduler.schedules.actions import LONGEST_BODY, METHODS, RUN_HEADER, check_action, perform_action
from scheduler.settings import Settings
from tests.factories import NOW, People, add_person, add_task
from tests.http_receiver import answer, http_receiver, redirects, says, silent
from tests.services.conftest import Clock
from tests.services.engine import (
    FailingDatabase,
    begin,
    declare,
    executor_of,
    logged,
    put_running,
    run_row,
    until_states,
)
from tests.services.stored import count, one, rows, set_

SECRET = "hunter2-correct-horse"
URL = "https://example.com/hook"


# -- when the schedule is made ---------------------------------------------------------------------------------


def wrong(action: dict[str, Any], *, allowed: Sequence[str] = (), now: datetime | None = None) -> dict[str, str]:
    """What is wrong with an action: fields and messages."""
    settings = Settings(allowed_private_hosts=tuple(allowed))
    try:
        check_action(action, settings=settings, **({} if now is None else {"now": now}))
    except Invalid as invalid:
        assert all(error.code and error.message for error in invalid.errors)
        return {error.field: error.message for error in invalid.errors}
    return {}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"method": "POST", "headers": {"Authorization": "Bearer x", "X-A": ""}, "body": "", "timeout_s": 1},
        {"timeout_s": 60, "expect_status": 204},
        {"timeout_s": 1.5, "expect_status": [200, 302, 599, 100]},
        {"body": "ü" * (LONGEST_BODY // 2)},
        {"headers": None, "body": None, "timeout_s": None, "expect_status": None},
        {"url": "http://8.8.8.8:81/"},
        {"url": "http://[2606:4700::1111]/"},
        # Names may lead elsewhere tomorrow: they are looked up when the request is sent.
        {"url": "http://localhost:9000/"},
        {"url": "http://db.internal/"},
        *[{"method": method} for method in METHODS],
    ],
)
def test_requests_that_can_be_sent(fields: dict[str, Any]) -> None:
    assert wrong({"type": "http_request", "method": "GET", "url": URL} | fields) == {}


PRIVATE = {
    "127.0.0.1": "loopback",
    "127.1:8080": "loopback",
    "0x7f000001": "loopback",
    "2130706433": "loopback",
    "0177.0.0.1": "loopback",
    "１２７.0.0.1": "loopback",
    "[::1]": "loopback",
    "10.1.2.3": "private",
    "192.168.0.1": "private",
    "172.16.0.1": "private",
    "169.254.169.254": "metadata",
    "0.0.0.0": "network",
    "[::ffff:10.0.0.1]": "private",
    "[fd00::1]": "private",
    "[fe80::1]": "link-local",
    "[::]": "unspecified",
    "100.64.0.1": "carrier",
    "224.0.0.1": "multicast",
    "255.255.255.255": "broadcast",
}
NO_METHODS: list[Any] = ["get", "TRACE", "CONNECT", "", None, [], "GET "]
NO_TIMEOUTS: list[Any] = [0, 0.99, 60.1, -1, "10", True, float("nan"), 10**400]
NO_STATUSES: list[Any] = [99, 600, "200", True, 200.5, 10**400, {}]


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"url": None}, "/url", "must be given"),
        ({"url": 5}, "/url", "must be given"),
        ({"url": ""}, "/url", "must begin with http"),
        ({"url": "ftp://example.com/"}, "/url", "must begin with http"),
        ({"url": "https://a:b@example.com/"}, "/url", "user name"),
        ({"url": "http://example.com/ x"}, "/url", "spaces"),
        ({"url": "http://1.2.3.4.5/"}, "/url", "IPv4"),
        *[({"url": f"http://{host}/"}, "/url", what) for host, what in PRIVATE.items()],
        *[({"method": method}, "/method", "must be one of GET, HEAD") for method in NO_METHODS],
        ({"headers": []}, "/headers", "an object"),
        ({"headers": {"X": 1}}, "/headers/X", "must be text"),
        ({"headers": {"a/b~": "x"}}, "/headers/a~1b~0", "not the name"),
        ({"headers": {"X": "a\r\nb"}}, "/headers/X", "control"),
        ({"headers": {"Host": "x"}}, "/headers/Host", "host of the URL"),
        ({"headers": {"content-length": "1"}}, "/headers/content-length", "connection"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers/x-a", "twice"),
        ({"headers": {f"x-{number}": "" for number in range(51)}}, "/headers", "at most 50"),
        ({"body": {"a": 1}}, "/body", "must be text"),
        ({"body": "ü" * (LONGEST_BODY // 2) + "x"}, "/body", "at most 65536 bytes"),
        *[({"timeout_s": value}, "/timeout_s", "from 1 to 60") for value in NO_TIMEOUTS],
        *[({"expect_status": value}, "/expect_status", "from 100 to 599") for value in NO_STATUSES],
        ({"expect_status": []}, "/expect_status", "from 1 to 50"),
        ({"expect_status": [200] * 51}, "/expect_status", "from 1 to 50"),
        ({"expect_status": [200, 0]}, "/expect_status/1", "from 100 to 599"),
        ({"retries": 5}, "/retries", "is not a field of http_request"),
        ({"task": {}}, "/task", "is not a field"),
    ],
)
def test_requests_that_can_not(fields: dict[str, Any], field: str, why: str) -> None:
    found = wrong({"type": "http_request", "method": "GET", "url": URL} | fields)
    assert found.keys() == {f"/action{field}"}
    assert why in found[f"/action{field}"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = wrong({"type": "http_request", "method": "x", "url": "y", "headers": {"Host": ""}, "timeout_s": 0})
    assert found.keys() == {"/action/method", "/action/url", "/action/headers/Host", "/action/timeout_s"}


@pytest.mark.parametrize(
    ("url", "allowed", "may"),
    [
        ("http://127.0.0.1:9000/", ["127.0.0.1"], True),
        ("http://127.0.0.1:9000/", ["127.0.0.0/8:9000"], True),
        ("http://127.0.0.1:9000/", ["127.0.0.1:9001"], False),
        ("http://127.0.0.1/", ["localhost"], False),  # a name allows the name
        ("http://[::1]:8080/", ["[::1]:8080"], True),
        ("http://[::1]/", ["[::1]:8080"], False),
        ("http://[::ffff:10.0.0.1]/", ["10.0.0.0/8"], True),
    ],
)
def test_what_the_operator_allows(url: str, allowed: list[str], may: bool) -> None:
    found = wrong({"type": "http_request", "method": "GET", "url": url}, allowed=allowed)
    assert (found == {}) == may
    if not may:
        assert "PUNCTUAL_ALLOWED_PRIVATE_HOSTS" in found["/action/url"]


def test_tasks_that_can_be_created() -> None:
    for task in (
        {"title": "x"},
        {"title": "x", "due_at": "2020-01-01T00:00:00Z", "reminders": [{"offset_minutes": 30.0}]},  # odd, but theirs
        {"title": "x", "reminders": [{"remind_at": "2020-01-01T00:00:00+01:00", "audience": "me"}]},
        {"title": "x", "due_at": None, "category": None, "assignee_ids": [str(new_id())], "reminders": []},
        {"title": "x", "due_at": NOW, "assignee_ids": [new_id()]},  # as the web has them before they are JSON
    ):
        assert wrong({"type": "create_task", "task": task}) == {}


@pytest.mark.parametrize(
    ("action", "field", "why"),
    [
        ({}, "/task", "must be the task"),
        ({"task": "x"}, "/task", "must be the task"),
        ({"task": {}}, "/task/title", "must be given"),
        ({"task": {"title": "x", "due_at": "tomorrow"}}, "/task/due_at", "with an offset"),
        ({"task": {"title": "x", "reminders": [{"offset_minutes": 5}]}}, "/task/reminders/0/offset_minutes", "due_at"),
        ({"task": {"title": "x", "reminders": [{"remind_at": "x"}]}}, "/task/reminders/0/remind_at", "with an offset"),
        ({"task": {"title": "x", "assignee_ids": ["x"]}}, "/task/assignee_ids/0", "nobody"),
        ({"task": {"title": "x"}, "url": URL}, "/url", "is not a field of create_task"),
    ],
)
def test_tasks_that_could_never_be_created(action: dict[str, Any], field: str, why: str) -> None:
    found = wrong({"type": "create_task"} | action)
    assert found.keys() == {f"/action{field}"}
    assert why in found[f"/action{field}"]


def test_a_reminder_that_is_past_when_the_schedule_is_made() -> None:
    action = {"type": "create_task", "task": {"title": "x", "reminders": [{"remind_at": format_instant(NOW)}]}}
    assert wrong(action, now=NOW) == {"/action/task/reminders/0/remind_at": "must lie ahead"}
    assert wrong(action, now=NOW - timedelta(seconds=1)) == {}


@pytest.mark.parametrize("kind", ["send_digest", "run_command", "", None, 5, []])
def test_other_actions(kind: Any) -> None:
    found = wrong({"type": kind})
    assert found.keys() == {"/action/type"}
    assert ("not available yet" in found["/action/type"]) == (kind == "send_digest")


# -- creating a task -------------------------------------------------------------------------------------------


@pytest.fixture
def http(settings: Settings) -> HttpRequests:
    """Requests as an operator lets them out who has listed nothing."""
    return HttpRequests(settings)


async def begun(database: Database, owner: Actor | None, action: Any, **columns: Any) -> RunningJob:
    """A run of a schedule of `owner`, which the worker "w" has begun."""
    run = await put_running(
        database, job="run_schedule", owner_id=owner and owner.user_id, arguments={"action": action}, **columns
    )
    run.arguments = {"action": action}
    return run


def creating(**task: Any) -> dict[str, Any]:
    return {"type": "create_task", "task": {"title": "Water the plants"} | task}


async def fails(*arguments: Any, **options: Any) -> JobFailed:
    """How performing an action fails."""
    with pytest.raises(JobFailed) as raised:
        await perform_action(*arguments, **options)
    assert raised.value.__cause__ is None
    return raised.value


async def test_a_task_is_created_with_all_that_it_is_to_have(
    database: Database, people: People, settings: Settings, http: HttpRequests, clock: Clock
) -> None:
    task = {
        "title": "Water the plants 🪴",
        "description": "All of\nthem",
        "status": "in_progress",
        "priority": "urgent",
        "category": "Home",
        "due_at": "2026-03-02T15:00:00+01:00",
        "timezone": "Europe/Berlin",
        "assignee_ids": [str(people.bob.user_id), str(people.alice.user_id)],
        "reminders": [
            {"offset_minutes": 30},
            {"offset_minutes": 60 * 24},
            {"remind_at": "2026-03-02T13:00:00Z", "audience": "me"},
        ],
    }
    run = await begun(database, people.alice, creating(**task))
    result = await perform_action(database, run=run, settings=settings, http=http, clock=clock)
    row = await one(database, Task)
    assert result == {"task_id": str(row.id)}
    assert (row.creator_id, row.title, row.description) == (people.alice.user_id, task["title"], task["description"])
    assert (row.status, row.priority, row.category, row.version) == ("in_progress", 4, "Home", 1)
    assert (row.due_at, row.timezone) == (datetime(2026, 3, 2, 14, tzinfo=UTC), "Europe/Berlin")
    assert row.created_at == clock.now
    assert {each.user_id for each in await rows(database, TaskAssignee)} == {people.alice.user_id, people.bob.user_id}
    reminders = sorted((each.fire_at.hour, each.state, each.audience) for each in await rows(database, Reminder))
    assert reminders == [(13, "pending", "assignees"), (13, "pending", "me"), (14, "skipped", "assignees")]
    ended = await run_row(database, run.id)
    assert (ended.state, ended.result, ended.finished_at) == ("succeeded", result, clock.now)
    assert run.is_settled


async def test_what_is_left_out_is_as_in_any_new_task(
    database: Database, settings: Settings, http: HttpRequests, clock: Clock
) -> None:
    alice = await add_person(database, "alice", timezone="Asia/Tokyo")
    run = await begun(database, alice, creating(due_at=None, category=None, assignee_ids=[], reminders=[]))
    await perform_action(database, run=run, settings=settings, http=http, clock=clock)
    row = await one(database, Task)
    assert (row.timezone, row.status, row.priority, row.due_at, row.description) == ("Asia/Tokyo", "todo", 2, None, "")
    assert await count(database, TaskAssignee) == await count(database, Reminder) == 0


async def test_it_is_created_once_however_often_it_is_performed(
    database: Database, people: People, settings: Settings, http: HttpRequests
) -> None:
    run = await begun(database, people.alice, creating())
    first = await perform_action(database, run=run, settings=settings, http=http)
    assert await perform_action(database, run=run, settings=settings, http=http) == first
    both = await asyncio.gather(
        *(perform_action(database, run=run, settings=settings, http=http) for _ in range(3)), return_exceptions=True
    )
    assert both == [first] * 3
    assert await count(database, Task) == 1


@pytest.mark.parametrize("fault", ["refused", "landed"])
async def test_it_is_created_once_when_the_commit_seems_to_fail(
    database: Database, people: People, settings: Settings, http: HttpRequests, fault: str
) -> None:
    run = await begun(database, people.alice, creating(reminders=[{"remind_at": "2199-01-01T00:00:00Z"}]))
    failing = FailingDatabase(settings.database_url)
    setattr(failing, fault, 1)
    try:
        result = await perform_action(failing, run=run, settings=settings, http=http)
    finally:
        await failing.dispose()
    assert failing.failures == 1
    assert result == {"task_id": str((await one(database, Task)).id)}
    assert await count(database, Reminder) == 1
    assert (await run_row(database, run.id)).result == result


async def test_no_task_comes_of_a_run_that_somebody_else_has_by_now(
    database: Database, people: People, settings: Settings, http: HttpRequests
) -> None:
    for columns in ({"seq": 2}, {"worker": "another"}, {"state": "cancelled"}):
        run = await begun(database, people.alice, creating())
        await set_(database, Run, run.id, **columns)
        with pytest.raises(RunTaken):
            await perform_action(database, run=run, settings=settings, http=http)
    assert await count(database, Task) == 0


async def test_a_task_that_can_not_be_created(
    database: Database, people: People, settings: Settings, http: HttpRequests, clock: Clock
) -> None:
    await set_(database, User, people.bob.user_id, status="deactivated")
    past = {"remind_at": format_instant(clock.now - timedelta(days=1))}
    for task, why in (
        ({"assignee_ids": [str(people.carol.user_id), str(people.bob.user_id)]}, "/assignee_ids/1 is nobody"),
        ({"assignee_ids": [str(new_id())]}, "/assignee_ids/0 is nobody"),
        ({"reminders": [{"remind_at": "2199-01-01T00:00:00Z"}, past]}, "/reminders/1/remind_at must lie ahead"),
        ({"reminders": [{"offset_minutes": 1}]}, "/action/task/reminders/0/offset_minutes needs a task with a due_at"),
    ):
        run = await begun(database, people.alice, creating(**task))
        failure = await fails(database, run=run, settings=settings, http=http, clock=clock)
        assert failure.permanent and why in str(failure)
        # It is the engine that writes down how it ended; nothing is left of the attempt.
        assert (await run_row(database, run.id)).state == "running" and not run.is_settled
    assert await count(database, Task) == await count(database, Reminder) == await count(database, TaskAssignee) == 0


# -- for whom --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["create_task", "http_request"])
@pytest.mark.parametrize("who", ["deactivated", "gone", "unverified", "nobody"])
async def test_nothing_is_done_for_people_who_may_nothing_more(
    database: Database, settings: Settings, kind: str, who: str
) -> None:
    alice = await add_person(database, "alice")
    settings = settings.model_copy(update={"require_verified_email": True, "allowed_private_hosts": ("127.0.0.1",)})
    http = HttpRequests(settings)
    async with http_receiver(says(answer())) as receiver:
        action = creating() if kind == "create_task" else {"type": kind, "method": "GET", "url": receiver.url}
        run = await begun(database, None if who == "nobody" else alice, action)
        if who == "deactivated":
            await set_(database, User, alice.user_id, status="deactivated")
        elif who == "unverified":
            await set_(database, User, alice.user_id, email_verified_at=None)
        elif who == "gone":
            async with database.write() as session:
                await session.execute(delete(User).where(User.id == alice.user_id))
        failure = await fails(database, run=run, settings=settings, http=http)
        assert failure.permanent
        assert {"deactivated": "no active account", "gone": "no active account"}.get(who, "") in str(failure)
        if who == "unverified":
            assert "is not verified" in str(failure)
            await perform_action(
                database, run=run, settings=settings.model_copy(update={"require_verified_email": False}), http=http
            )
        assert len(receiver.requests) == (who == "unverified" and kind == "http_request")
    assert await count(database, Task) == (who == "unverified" and kind == "create_task")


@pytest.mark.parametrize("action", [None, "x", [], {}, {"type": "send_digest"}, {"type": "create_task"}])
async def test_runs_that_have_no_action_worth_the_name(
    database: Database, people: People, settings: Settings, http: HttpRequests, action: Any
) -> None:
    failure = await fails(database, run=await begun(database, people.alice, action), settings=settings, http=http)
    assert failure.permanent


# -- sending a request -----------------------------------------------------------------------------------------


@pytest.fixture
def local(settings: Settings) -> Settings:
    """An operator who has listed 127.0.0.1."""
    return settings.model_copy(update={"allowed_private_hosts": ("127.0.0.1",)})


def sending(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "http_request", "method": "GET", "url": url} | fields


async def test_a_request_is_sent_and_its_answer_kept(database: Database, people: People, local: Settings) -> None:
    async with http_receiver(says(answer("201 Created", b"made", content_type="text/plain"))) as receiver:
        action = sending(
            receiver.url + "/hook?a=b",
            method="POST",
            headers={"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"},
            body='{"a": "ü"}',
            timeout_s=5,
        )
        run = await begun(database, people.alice, action)
        result = await perform_action(database, run=run, settings=local, http=HttpRequests(local))
    assert result is not None and result.pop("duration_ms") >= 0
    headers = {"Content-Length": "4", "Content-Type": "text/plain"}
    assert result == {"status": 201, "headers": headers, "body": "made", "truncated": False}
    request = receiver.request
    assert (request.method, request.target, request.body) == ("POST", "/hook?a=b", '{"a": "ü"}'.encode())
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["content-type"] == "application/json"
    assert UUID(request.headers[RUN_HEADER.lower()]) == run.id
    assert not run.is_settled  # the engine writes it down


async def test_as_little_as_can_be_given(database: Database, people: People, local: Settings) -> None:
    async with http_receiver(says(answer())) as receiver:
        run = await begun(database, people.alice, {"type": "http_request", "url": receiver.url})
        await perform_action(database, run=run, settings=local, http=HttpRequests(local))
    assert (receiver.request.method, receiver.request.body) == ("GET", b"")


@pytest.mark.parametrize(
    ("status", "expected", "fits"),
    [
        ("200 OK", None, True),
        ("299 Odd", None, True),
        ("204 No Content", 204, True),
        ("204 No Content", [200, 204], True),
        ("404 Not Found", 404, True),
        ("500 Internal Server Error", [500.0], True),
        ("302 Found", 302, True),  # and is not followed
        ("404 Not Found", None, False),
        ("304 Not Modified", None, False),
        ("500 Internal Server Error", None, False),
        ("200 OK", 204, False),
        ("299 Odd", [200, 204], False),
        ("599 Odd", None, False),
    ],
)
async def test_which_status_is_a_success(
    database: Database, people: People, local: Settings, status: str, expected: Any, fits: bool
) -> None:
    raw = answer(status, b"" if status[:3] in ("204", "304") else b"body", location="/elsewhere")
    async with http_receiver(says(raw)) as receiver:
        run = await begun(database, people.alice, sending(receiver.url, expect_status=expected))
        performing = {"run": run, "settings": local, "http": HttpRequests(local)}
        if fits:
            result = await perform_action(database, **performing)  # type: ignore[arg-type]
        else:
            failure = await fails(database, **performing)
            assert not failure.permanent
            phrase = status if not status.endswith("Odd") else status[:3]
            assert str(failure).startswith(f"It answered {phrase}; expected was ")
            result = failure.result
        assert len(receiver.requests) == 1
    assert result is not None and result["status"] == int(status[:3])


async def test_private_addresses_are_refused_for_good(
    database: Database, people: People, settings: Settings, local: Settings
) -> None:
    async def inwards(_: str) -> list[Address]:
        return [ip_address("127.0.0.1")]

    async with (
        http_receiver(says(answer())) as receiver,
        http_receiver(redirects("302 Found", f"http://127.0.0.2:{receiver.port}/")) as redirecting,
    ):
        for url, allowed in (
            (receiver.url, settings),  # made before the operator took it from the list
            (f"http://localhost:{receiver.port}/{SECRET}", settings),
            (f"http://a.example:{receiver.port}/{SECRET}", settings),
            (f"{redirecting.url}/{SECRET}", local),
        ):
            http = HttpRequests(allowed, resolve=inwards)
            with logged() as lines:
                failure = await fails(
                    database, run=await begun(database, people.alice, sending(url)), settings=allowed, http=http
                )
            assert failure.permanent and "PUNCTUAL_ALLOWED_PRIVATE_HOSTS" in str(failure)
            assert SECRET not in str(failure) + str(lines.all())
            if url != receiver.url:
                (line,) = lines.events("http_request.address_refused")
                assert line["level"] == "warning" and line["user_id"] == str(people.alice.user_id)
        assert receiver.connections == 0
    assert failure.result is not None and failure.result["status"] == 302


@pytest.mark.heavy(on="mariadb")
async def test_what_went_wrong_is_said_and_tried_again(database: Database, people: People, local: Settings) -> None:
    async def nowhere(_: str) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    http = HttpRequests(local, resolve=nowhere)
    scripts = {
        "/silent": silent,
        "/loop": redirects("302 Found", "/loop"),
        "/short": says(answer(body=b"ha", length=9)),
    }
    async with http_receiver(scripts) as receiver:
        for url, why, status in (
            (receiver.url + "/silent", "took too long", None),
            (receiver.url + "/loop", "more than 5 redirects", 302),
            (receiver.url + "/short", "broke off", 200),
            ("http://a.example/", "a.example could not be looked up", None),
            ("http://127.0.0.1:1/", "can't be connected to: connection refused", None),
            (receiver.url.replace("http:", "https:"), "TLS", None),
        ):
            run = await begun(database, people.alice, sending(url, timeout_s=1))
            failure = await fails(database, run=run, settings=local, http=http)
            assert why in str(failure) or url.startswith("https"), failure
            assert not failure.permanent
            assert (failure.result and failure.result["status"]) == status
    assert failure.result is None


# -- within the engine -----------------------------------------------------------------------------------------


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job that is performed as a person's schedules are."""
    return declare(monkeypatch)


@asynccontextmanager
async def running(database: Database, owner: Actor, action: dict[str, Any], settings: Settings) -> AsyncIterator[Any]:
    """An executor that has begun one run of this action: gives the executor, the run, and the task that performs it."""
    http = HttpRequests(settings)

    async def perform(run: RunningJob) -> dict[str, Any] | None:
        return await perform_action(database, run=run, settings=settings, http=http)

    (run,) = await begin(database, owner_id=owner.user_id, arguments={"action": action})
    async with executor_of(database, perform) as executor:
        yield executor, run, executor.start(run)


AWKWARD = [
    b"\x00\x01\x02\xff\xfe" * 200,
    bytes(range(256)) * 300,
    "🪴\u2028\\u0000 \\\"'`%s :name ${} \N{BOM}".encode() * 1500,
    b'{"a": "\\u0000\\ud83d"}' * 100,
    b"'; DROP TABLE run; -- \\",
]


@pytest.mark.parametrize("body", AWKWARD)
async def test_any_answer_can_be_stored_and_read(
    database: Database, people: People, local: Settings, job: Job, body: bytes
) -> None:
    raw = answer("200 OK", body, x_awkward="\t\\\"'\xff")
    async with http_receiver(says(raw)) as receiver:
        for expected in (None, 404):
            action = sending(receiver.url, expect_status=expected)
            async with running(database, people.alice, action, local) as (_, run, task):
                await task
            row = await run_row(database, run.id)
            assert row.state == ("succeeded" if expected is None else "waiting")
            text = body.decode("utf-8", "replace")[: 64 * 1024]
            kept = "".join(
                each if each in "\t\r\n" or ord(each) >= 0xA0 or 0x20 <= ord(each) < 0x7F else "\ufffd" for each in text
            )
            assert row.result["body"] == kept or (row.result["truncated"] and kept.startswith(row.result["body"]))
            assert row.result["headers"]["X-Awkward"] == "\\\"'\ufffd"
            assert check_result(row.result) == row.result


async def test_the_largest_answer_fits(database: Database, people: People, local: Settings) -> None:
    headers = {f"x_{number}": "\xff" * 200 for number in range(120)}
    async with http_receiver(says(answer("200 OK", b"\xff" * 1_000_000, **headers))) as receiver:  # type: ignore[arg-type]
        run = await begun(database, people.alice, sending(receiver.url))
        result = await perform_action(database, run=run, settings=local, http=HttpRequests(local))
    assert result is not None and result["truncated"] and len(result["body"]) == 64 * 1024
    outcome = Outcome(run, RunState.SUCCEEDED, NOW, check_result(result))
    await database.retry_write(lambda session: settle(session, outcomes=[outcome]))
    assert (await run_row(database, run.id)).result == result


async def test_cancelling_a_run_hangs_up_at_once(database: Database, people: People, local: Settings, job: Job) -> None:
    async with http_receiver(silent) as receiver:
        action = sending(receiver.url, timeout_s=60)
        async with running(database, people.alice, action, local) as (executor, run, _):
            await receiver.came.wait()
            began = time.monotonic()
            executor.cancel(run.key)
            await asyncio.wait_for(receiver.hung_up.wait(), 2)
            await until_states(database, {"cancelled": 1})
            assert time.monotonic() - began < 2


async def test_neither_logs_nor_errors_hold_secrets(
    database: Database, people: People, local: Settings, job: Job
) -> None:
    async with http_receiver({f"/{SECRET}": says(answer("500 Internal Server Error", SECRET.encode()))}) as receiver:
        for path, fields in (
            (f"/{SECRET}", {}),
            (f"/{SECRET}", {"expect_status": 500}),
            ("/cut", {}),
        ):
            action = sending(
                f"{receiver.url}{path}?key={SECRET}",
                method="POST",
                headers={"Authorization": f"Bearer {SECRET}", "X-Anything": SECRET},
                body=SECRET,
                **fields,
            )
            with logged() as lines:
                async with running(database, people.alice, action, local) as (_, run, task):
                    await task
            assert lines.all() and SECRET not in str(lines.all())
            assert SECRET not in str((await run_row(database, run.id)).error)
    assert len(receiver.requests) == 3


async def test_it_is_no_transaction_that_waits_for_somebody_elses_server(
    database: Database, people: People, local: Settings
) -> None:
    async with http_receiver(silent) as receiver:
        run = await begun(database, people.alice, sending(receiver.url, timeout_s=60))
        performing = asyncio.create_task(perform_action(database, run=run, settings=local, http=HttpRequests(local)))
        await receiver.came.wait()
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await add_task(database, people.alice)
        performing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await performing
