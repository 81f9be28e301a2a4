"""What a person's schedule does when it fires: create a task, or send an HTTP request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from models.reminder import Audience
from scheduler.access import Actor, Role
from scheduler.clock import EARLIEST, parse_instant
from scheduler.clock import now as present
from scheduler.database import Database
from scheduler.errors import FieldError, Invalid, PunctualError
from scheduler.http_requests.addresses import read_allowed_hosts, refusal
from scheduler.http_requests.client import DEFAULT_TIMEOUT_S, AddressRefused, HttpRequests, Request, RequestFailed
from scheduler.http_requests.headers import MOST_HEADERS, check_header
from scheduler.http_requests.urls import read_url
from scheduler.identifiers import parse_id
from scheduler.logs import get_logger
from scheduler.reminders.rows import ReminderSpec
from scheduler.reminders.rows import check as check_reminders
from scheduler.reminders.rules import TaskTimes
from scheduler.runs.effect import succeed_with
from scheduler.runs.running import JobFailed, RunningJob
from scheduler.settings import Settings
from scheduler.tasks.create import create_task

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LONGEST_BODY = 64 * 1024  # bytes of a request, as UTF-8
SHORTEST_TIMEOUT_S, LONGEST_TIMEOUT_S = 1, 60
MOST_EXPECTED = 50
RUN_HEADER = "Punctual-Run-Id"
"""Sent with each request: a receiver that keeps it knows a second attempt at the same run when it sees one."""

log = get_logger("schedules")


class ActionType(StrEnum):
    """What a schedule can do."""

    CREATE_TASK = "create_task"
    HTTP_REQUEST = "http_request"
    SEND_DIGEST = "send_digest"


# -- when the schedule is made ---------------------------------------------------------------------------------


def check_action(action: Mapping[str, Any], *, settings: Settings, now: datetime = EARLIEST) -> None:
    """Raise `Invalid`, pointing below `/action`, for an action that can't be done.

    Of a task, the shape of its fields is the web's to check; here, what would fail each time that it is created.
    With `now`, also an absolute reminder that is past already. A host's name is looked up when the request is sent.
    """
    kind = action.get("type")
    if kind == ActionType.CREATE_TASK:
        errors = _wrong_in_task(action, now)
    elif kind == ActionType.HTTP_REQUEST:
        errors = _wrong_in_request(action, settings)
    elif kind == ActionType.SEND_DIGEST:
        errors = [FieldError("/type", "is not available yet; use create_task or http_request", "unavailable")]
    else:
        errors = [FieldError("/type", "must be create_task or http_request", "unknown_type")]
    if errors:
        raise Invalid(*(error._replace(field=f"/action{error.field}") for error in errors))


def _wrong_in_task(action: Mapping[str, Any], now: datetime) -> list[FieldError]:
    errors = _unknown_fields(action, {"type", "task"})
    task = action.get("task")
    if not isinstance(task, Mapping):
        return [*errors, FieldError("/task", "must be the task to create, as in POST /tasks", "required")]
    try:
        values = _task_values(task)
        times = TaskTimes(values.get("due_at"), False, "UTC", is_completed=False, is_deleted=False)
        check_reminders(values.get("reminders", ()), times=times, now=now)
    except Invalid as invalid:
        errors += [error._replace(field=f"/task{error.field}") for error in invalid.errors]
    return errors


def _wrong_in_request(action: Mapping[str, Any], settings: Settings) -> list[FieldError]:
    errors = _unknown_fields(action, {"type", "method", "url", "headers", "body", "timeout_s", "expect_status"})
    if action.get("method", "GET") not in METHODS:
        errors.append(FieldError("/method", f"must be one of {', '.join(METHODS)}", "unknown_method"))
    errors += _wrong_in_url(action.get("url"), settings)
    errors += _wrong_in_headers(action.get("headers"))
    errors += _wrong_in_body(action.get("body"))
    timeout_s = action.get("timeout_s")
    if timeout_s is not None and not (_is_number(timeout_s) and SHORTEST_TIMEOUT_S <= timeout_s <= LONGEST_TIMEOUT_S):
        range_ = f"from {SHORTEST_TIMEOUT_S} to {LONGEST_TIMEOUT_S}"
        errors.append(FieldError("/timeout_s", f"must be a number of seconds {range_}", "out_of_range"))
    return errors + _wrong_in_expectation(action.get("expect_status"))


def _wrong_in_url(url: Any, settings: Settings) -> list[FieldError]:
    if not isinstance(url, str):
        return [FieldError("/url", "must be given: where the request goes", "required")]
    try:
        target = read_url(url)
    except ValueError as error:
        return [FieldError("/url", str(error), "bad_url")]
    if target.address is None:
        return []  # a name may lead elsewhere tomorrow
    what = refusal(target.address)
    if what is None or read_allowed_hosts(settings.allowed_private_hosts).takes_address(target.address, target.port):
        return []
    message = (
        f"must not lead to a private address, and {target.address} is {what}; the operator of this service can allow"
        " it (PUNCTUAL_ALLOWED_PRIVATE_HOSTS)"
    )
    return [FieldError("/url", message, "private_address")]


def _wrong_in_headers(headers: Any) -> list[FieldError]:
    if headers is None:
        return []
    if not isinstance(headers, Mapping):
        return [FieldError("/headers", "must be an object of names and values", "wrong_type")]
    if len(headers) > MOST_HEADERS:
        return [FieldError("/headers", f"must be at most {MOST_HEADERS}", "too_long")]
    errors = []
    seen: set[str] = set()
    for name, value in headers.items():
        place = f"/headers/{_escaped(name)}"
        if not isinstance(value, str):
            errors.append(FieldError(place, "must be text", "wrong_type"))
            continue
        try:
            check_header(name, value)
        except ValueError as error:
            errors.append(FieldError(place, str(error), "bad_header"))
        if name.lower() in seen:
            errors.append(FieldError(place, "is given twice: case makes no difference in a header's name", "repeated"))
        seen.add(name.lower())
    return errors


def _wrong_in_body(body: Any) -> list[FieldError]:
    if body is None:
        return []
    if not isinstance(body, str):
        return [FieldError("/body", "must be text; write JSON as a string", "wrong_type")]
    # Some of the text may be no UTF-8 (halves of surrogate pairs); JSON that came by HTTP has none.
    if len(body.encode("utf-8", "replace")) > LONGEST_BODY:
        return [FieldError("/body", f"must have at most {LONGEST_BODY} bytes", "too_long")]
    return []


def _wrong_in_expectation(expected: Any) -> list[FieldError]:
    statuses = expected if isinstance(expected, list | tuple) else [] if expected is None else [expected]
    errors = [
        FieldError(
            f"/expect_status/{index}" if statuses is expected else "/expect_status",
            "must be a status from 100 to 599, or a list of them",
            "out_of_range",
        )
        for index, status in enumerate(statuses)
        if not (_is_number(status) and status == int(status) and 100 <= status <= 599)
    ]
    if expected is not None and not 1 <= len(statuses) <= MOST_EXPECTED:
        errors.append(FieldError("/expect_status", f"must be from 1 to {MOST_EXPECTED} of them", "too_long"))
    return errors


def _unknown_fields(action: Mapping[str, Any], known: set[str]) -> list[FieldError]:
    return [
        FieldError(f"/{_escaped(name)}", f"is not a field of {action['type']}", "unknown_field")
        for name in action
        if name not in known
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9  # no NaN either


def _escaped(name: str) -> str:
    """As a part of a JSON Pointer (RFC 6901, 3)."""
    return name[:100].replace("~", "~0").replace("/", "~1")


# -- when it fires ---------------------------------------------------------------------------------------------


async def perform_action(
    database: Database,
    *,
    run: RunningJob,
    settings: Settings,
    http: HttpRequests,
    clock: Callable[[], datetime] = present,
) -> dict[str, Any] | None:
    """Do what the schedule said when it fired (`run.arguments["action"]`), for the person whose run it is.

    A task and the end of its run commit together: it is created once. Raises `JobFailed`.
    """
    action = run.arguments.get("action")
    if not isinstance(action, Mapping) or run.owner_id is None:
        raise JobFailed("It has no action, or belongs to nobody: it is no run of a person's schedule.", permanent=True)
    try:
        check_action(action, settings=settings)
    except Invalid as invalid:
        raise JobFailed(f"The action can't be done: {_in_words(invalid)}", permanent=True) from None
    if action["type"] == ActionType.CREATE_TASK:
        return await _create_task(database, run=run, task=action["task"], settings=settings, clock=clock)
    return await _send_request(database, run=run, action=action, settings=settings, http=http)


async def _owner(session: AsyncSession, owner_id: UUID, settings: Settings) -> Actor:
    """The person whose schedule it is, as they are now. Raises `JobFailed` if it may do nothing more for them."""
    query = select(User.role, User.status, User.timezone, User.email_verified_at).where(User.id == owner_id)
    owner = (await session.execute(query)).one_or_none()
    if owner is None or owner.status != "active":
        raise JobFailed("Whoever made the schedule has no active account any more.", permanent=True)
    if settings.require_verified_email and owner.email_verified_at is None:
        raise JobFailed("The e-mail address of whoever made the schedule is not verified.", permanent=True)
    return Actor(
        user_id=owner_id,
        role=Role(owner.role),
        timezone=owner.timezone,
        email_verified=owner.email_verified_at is not None,
    )


async def _create_task(
    database: Database, *, run: RunningJob, task: Mapping[str, Any], settings: Settings, clock: Callable[[], datetime]
) -> dict[str, Any]:
    async def effect(session: AsyncSession) -> dict[str, Any]:
        assert run.owner_id is not None
        actor = await _owner(session, run.owner_id, settings)
        task_id = await create_task(session, actor=actor, values=_task_values(task), now=clock())
        return {"task_id": str(task_id)}

    try:
        return await succeed_with(database, run=run, effect=effect, clock=clock)
    except PunctualError as error:
        why = _in_words(error) if isinstance(error, Invalid) else error.message
        raise JobFailed(f"The task can't be created: {why}", permanent=True) from None


async def _send_request(
    database: Database, *, run: RunningJob, action: Mapping[str, Any], settings: Settings, http: HttpRequests
) -> dict[str, Any]:
    assert run.owner_id is not None
    async with database.read() as session:  # ended before the request begins
        await _owner(session, run.owner_id, settings)
    wanted = _wanted(action.get("expect_status"))
    headers, body = action.get("headers") or {}, action.get("body")
    request = Request(
        method=action.get("method", "GET"),
        url=action["url"],
        headers={RUN_HEADER: str(run.id)} | headers,
        body=None if body is None else body.encode("utf-8", "replace"),
        timeout_s=action.get("timeout_s") or DEFAULT_TIMEOUT_S,
        final=frozenset(wanted or ()),
    )
    try:
        answer = await http.send(request)
    except RequestFailed as failure:
        result = failure.answer.as_result() if failure.answer is not None else None
        if isinstance(failure, AddressRefused):
            log.warning("http_request.address_refused", **run.log_context(), error=str(failure))
        raise JobFailed(str(failure), result=result, permanent=failure.is_permanent) from None
    if not (200 <= answer.status <= 299 if wanted is None else answer.status in wanted):
        expectation = "a status from 200 to 299" if wanted is None else " or ".join(map(str, wanted[:10]))
        raise JobFailed(f"It answered {_status(answer.status)}; expected was {expectation}.", result=answer.as_result())
    return answer.as_result()


def _task_values(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task's JSON, as in `POST /tasks`, as the services take it. Raises `Invalid`, pointing into the task."""
    values = dict(task)
    errors: list[FieldError] = []
    if not isinstance(values.get("title"), str):
        errors.append(FieldError("/title", "must be given", "required"))

    def instant(value: Any, place: str) -> datetime | None:
        if value is None or isinstance(value, datetime):
            return value
        try:
            return parse_instant(str(value))
        except ValueError as error:
            errors.append(FieldError(place, str(error), "bad_instant"))
            return None

    if "due_at" in values:
        values["due_at"] = instant(values["due_at"], "/due_at")
    if "reminders" in values:
        values["reminders"] = [
            ReminderSpec(
                None if (minutes := reminder.get("offset_minutes")) is None else int(minutes),
                instant(reminder.get("remind_at"), f"/reminders/{index}/remind_at"),
                str(reminder.get("audience", Audience.ASSIGNEES)),
            )
            for index, reminder in enumerate(values["reminders"] or ())
        ]
    if "assignee_ids" in values:
        ids = [parse_id(str(each)) for each in values["assignee_ids"] or ()]
        errors += [
            FieldError(f"/assignee_ids/{index}", "is nobody that you could assign", "not_found")
            for index, each in enumerate(ids)
            if each is None
        ]
        values["assignee_ids"] = ids
    if errors:
        raise Invalid(*errors)
    return values


def _wanted(expected: Any) -> list[int] | None:
    """The statuses that are a success; None: any that means so."""
    if expected is None:
        return None
    return [int(each) for each in (expected if isinstance(expected, list | tuple) else [expected])]


def _in_words(invalid: Invalid) -> str:
    return "; ".join(f"{error.field} {error.message}" for error in invalid.errors)


def _status(status: int) -> str:
    """`404 Not Found`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
