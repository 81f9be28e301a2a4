"""A Postman 2.1 collection made from the OpenAPI document, in an order that tells a story and so runs green
in newman.

`newman run collection.json --env-var base_url=http://127.0.0.1:8080`
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from web.routing import MULTIPART

SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the story."""

    operation: str
    """The operationId."""
    status: int | tuple[int, ...]
    """What it must answer, or any of several."""
    body: dict[str, Any] | None = None
    """Instead of the document's example; `{{name}}` is a variable."""
    query: dict[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()
    """Lines of script that run before it."""
    after: Sequence[str] = ()
    """Lines of script that run after it, with the answer as `answer`."""
    note: str = ""


def _keep(variable: str, expression: str) -> str:
    return f'pm.collectionVariables.set("{variable}", {expression});'


_TOKENS = (_keep("access_token", "answer.access_token"), _keep("refresh_token", "answer.refresh_token"))

STORY = (
    Step("get_health", 200),
    Step("get_readiness", 200),
    Step(
        "signup",
        201,
        {"email": "{{email}}", "password": "{{password}}", "name": "Ada", "timezone": "Europe/London"},
        before=(_keep("email", '"ada-" + pm.variables.replaceIn("{{$guid}}") + "@example.com"'),),
        after=_TOKENS,
    ),
    Step("login", 200, {"email": "{{email}}", "password": "{{password}}"}, after=_TOKENS),
    Step("refresh_token", 200, {"refresh_token": "{{refresh_token}}"}, after=_TOKENS),
    Step("get_me", 200, after=(_keep("user_id", "answer.id"),)),
    Step("change_me", 200, {"name": "Ada King", "locale": "en-GB"}),
    Step("look_up_people", 200, query={"q": "ada"}),
    Step("list_my_activity", 200),
    Step("set_my_avatar", (200, 415), note="choose a file first"),
    Step("get_my_avatar", (200, 404), note="once there is one"),
    Step("get_avatar", (200, 404), note="once there is one"),
    Step("remove_my_avatar", (204, 404), note="once there is one"),
    Step("export_me", (200, 202)),
    Step("deactivate_me", 403, {"password": "not my password"}, note="the password is wrong"),
    Step("delete_me", 403, {"password": "not my password"}, note="the password is wrong"),
    Step("resend_verification", 202),
    Step("verify_email", 422, {"token": "not-a-token"}, note="the token stands in the e-mail"),
    Step(
        "create_task",
        201,
        {
            "title": "Pay the rent",
            "priority": "high",
            "due_at": "{{tomorrow}}",
            "reminders": [{"offset_minutes": 30}],
        },
        before=(_keep("tomorrow", "new Date(Date.now() + 864e5).toISOString()"),),
        after=(_keep("task_id", "answer.id"), _keep("reminder_id", "answer.reminders[0].id")),
    ),
    Step("list_tasks", 200, query={"status": "todo", "limit": "10", "count": "true"}),
    Step("get_task", 200),
    Step("change_task", 200, {"status": "in_progress", "category": "Home"}),
    Step("assign_task", 200, {"user_id": "{{user_id}}"}),
    Step("unassign_task", 204),
    Step("share_task", 422, {"user_id": "{{user_id}}", "permission": "edit"}, note="who made it has it already"),
    Step("unshare_task", 404, note="it is shared with nobody"),
    Step("list_reminders", 200),
    Step(
        "add_reminder",
        201,
        {"remind_at": "{{tomorrow}}", "audience": "me"},
        after=(_keep("reminder_id", "answer.id"),),
    ),
    Step("snooze_reminder", 200, {"minutes": 10}),
    Step("list_my_deliveries", 200),
    Step("list_task_deliveries", 200),
    Step("delete_reminder", 204),
    Step("delete_task", 204),
    Step("restore_task", 200),
    Step(
        "create_schedule",
        201,
        {
            "name": "Every working day",
            "cron": "0 9 * * MON-FRI",
            "timezone": "Europe/London",
            "action": {"type": "create_task", "task": {"title": "Water the plants"}},
        },
        after=(_keep("schedule_id", "answer.id"),),
    ),
    Step("list_schedules", 200),
    Step("get_schedule", 200),
    Step("change_schedule", 200, {"overlap": "queue"}),
    Step("run_schedule", 202, after=(_keep("run_id", "answer.id"),)),
    Step("list_schedule_runs", 200, query={"trigger": "manual"}),
    Step("list_my_runs", 200),
    Step("get_my_run", 200),
    # A worker may have been quicker.
    Step("cancel_my_run", (202, 409)),
    Step("backfill_schedule", 202, {"from": "2026-01-05T00:00:00Z", "until": "2026-01-06T00:00:00Z"}),
    Step("delete_schedule", 204),
    *(
        Step(operation, 403, body, note="for administrators")
        for operation, body in (
            ("list_users", None),
            ("create_user", {"email": "grace@example.com", "name": "Grace"}),
            ("get_user", None),
            ("change_user", {"role": "manager"}),
            ("delete_user", None),
            ("list_all_users", None),
            ("list_all_tasks", None),
            ("get_stats", None),
            ("list_jobs", None),
            ("get_job", None),
            ("change_job", {"enabled": True}),
            ("run_job", None),
            ("list_runs", None),
            ("get_run", None),
            ("list_run_logs", None),
            ("retry_run", None),
            ("cancel_run", None),
            ("list_emails", None),
            ("retry_email", None),
            ("revoke_sessions", None),
        )
    ),
)
LAST = (Step("logout", 204), Step("get_me", 401, note="signed out"))


def postman_collection(document: dict[str, Any]) -> dict[str, Any]:
    """The collection for an OpenAPI document: the story, then what it leaves out, then signing out."""
    operations = {
        operation["operationId"]: (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    told = {step.operation for step in (*STORY, *LAST)}
    steps = [step for step in (*STORY, *LAST) if step.operation in operations]
    others = [_item_outside(*operation) for name, operation in operations.items() if name not in told]
    items = [_item(step, *operations[step.operation]) for step in steps]
    end = len(items) - len([step for step in LAST if step.operation in operations])
    return {
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "version": document["info"]["version"],
            "schema": SCHEMA,
        },
        "auth": {
            "type": "bearer",
            "bearer": [{"key": "token", "value": "{{access_token}}", "type": "string"}],
        },
        "variable": [
            {"key": "base_url", "value": "http://127.0.0.1:8080"},
            {"key": "password", "value": "correct horse battery"},
            # Of what is an administrator's the ids do not matter here.
            *({"key": key, "value": "01890000-0000-7000-8000-000000000000"} for key in ("email_id", "user_id")),
            {"key": "name", "value": "cleanup"},
        ],
        "item": [*items[:end], *others, *items[end:]],
    }


def _item(step: Step, method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    name = operation["summary"] + (f" ({step.note})" if step.note else "")
    statuses = list(step.status) if isinstance(step.status, tuple) else [step.status]
    words = " or ".join(map(str, statuses))
    tests = [f'pm.test("answers {words}", () => pm.expect(pm.response.code).to.be.oneOf({statuses}));']
    if step.after:
        tests += ["const answer = pm.response.json();", *step.after]
    events = [_script("test", tests)]
    if step.before:
        events.append(_script("prerequest", step.before))
    return {
        "name": name,
        "event": events,
        "request": _request(method, path, operation, step.query, step.body),
    }


def _item_outside(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """A request that the story does not tell: it may find nothing, but it must be answered in order."""
    tests = ['pm.test("answers in order", () => pm.expect(pm.response.code).to.be.below(500));']
    return {
        "name": operation["summary"],
        "event": [_script("test", tests)],
        "request": _request(method, path, operation, {}, None),
    }


def _script(listen: str, lines: Sequence[str]) -> dict[str, Any]:
    return {"listen": listen, "script": {"type": "text/javascript", "exec": list(lines)}}


def _request(
    method: str, path: str, operation: dict[str, Any], query: dict[str, str], body: dict[str, Any] | None
) -> dict[str, Any]:
    filled = _PARAMETER.sub(r"{{\1}}", path)
    url: dict[str, Any] = {
        "raw": "{{base_url}}"
        + filled
        + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else ""),
        "host": ["{{base_url}}"],
        "path": filled.strip("/").split("/"),
    }
    if query:
        url["query"] = [{"key": key, "value": value} for key, value in query.items()]
    request: dict[str, Any] = {
        "method": method,
        "header": [{"key": "Accept", "value": "application/json"}],
        "url": url,
        "description": operation.get("description", ""),
    }
    if not operation.get("security"):
        request["auth"] = {"type": "noauth"}
    taken = operation.get("requestBody", {}).get("content", {})
    if MULTIPART in taken:
        # Which file is for whoever has one: none is sent until one is chosen.
        fields = taken[MULTIPART]["schema"]["properties"]
        request["body"] = {
            "mode": "formdata",
            "formdata": [{"key": name, "type": "file", "src": []} for name in fields],
        }
    elif taken:
        request["header"].append({"key": "Content-Type", "value": "application/json"})
        request["body"] = {
            "mode": "raw",
            "raw": json.dumps(body or {}, indent=2),
            "options": {"raw": {"language": "json"}},
        }
    return request
