"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): makes well-formed data also mean something.

No schema can say that a cursor must be one that was given, an id somebody's, a time ahead, a password long
enough after NFKC, or that an offset needs a due time. Data that is meant to be wrong is left as it is.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import schemathesis

from scheduler.accounts.passwords import objection

_keys = count()
AHEAD = "2199-01-01T00:00:00Z"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """The last word before a request is sent, in every phase."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.headers is not None and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"fuzz-{next(_keys)}"  # one that is taken answers 422, as it must
    if isinstance(case.query, dict):
        case.query.pop("cursor", None)
    if isinstance(case.path_parameters, dict) and "name" in case.path_parameters:
        case.path_parameters["name"] = "cleanup"
    body = case.body
    if not isinstance(body, dict):
        return
    password = body.get("password") if case.path.endswith(("/auth/signup", "/users")) else None
    if password is not None and objection(password, email=body["email"]):
        body["password"] = "correct horse battery"
    if body.get("role") == "admin":
        body["role"] = "manager"  # whose requests these are stays the last administrator, and so signed in
    if body.get("expires_at") is not None:
        body["expires_at"] = AHEAD
    if "assignee_ids" in body:
        body["assignee_ids"] = []
    if isinstance(body.get("action"), dict):
        _make_doable(body["action"])
    if "cron" in body:
        body["cron"] = "0 9 * * MON-FRI"
    if "args" in body:
        body["args"] = {}
    if "from" in body:
        body |= {"from": "2026-11-01T00:00:00Z", "until": "2026-11-02T00:00:00Z"}
    elif body.get("until") is not None:
        body["until"] = AHEAD
    if body.get("reminders"):
        body["reminders"] = body["reminders"][:1]  # what a task has already counts too
    for reminder in body.get("reminders", []):
        _put_ahead(reminder)
    _put_ahead(body)


def _make_doable(action: dict[str, Any]) -> None:
    """Of any action that has the right shape, one that the service can do."""
    if action["type"] == "create_task":
        action["task"] = {"title": action["task"]["title"]}
    elif action["type"] == "http_request":
        action["url"] = "https://example.com/hook"
        action["headers"] = {"X-Test": "1"}
    else:
        action |= {"type": "create_task", "task": {"title": "T"}}


def _put_ahead(reminder: dict[str, Any]) -> None:
    if reminder.pop("offset_minutes", None) is not None or reminder.get("remind_at") is not None:
        reminder["remind_at"] = AHEAD
