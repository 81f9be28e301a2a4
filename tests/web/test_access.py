"""Section 2 of the contract over HTTP: each (role, relation, action) cell, against every route that there is for it.

What one does not see is a 404, what one sees but may not do a 403, and neither leaves a trace.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from models import Reminder, Task, TaskAssignee, TaskShare
from scheduler.access import Action, Permission, Relation, Right, Role
from scheduler.clock import format_instant, now
from scheduler.identifiers import new_id
from tests.access_table import ASSIGNEE, CREATOR, EDIT, RIGHTS, VIEW, is_allowed
from tests.factories import add_rows, assignee_row, reminder_row, share_row, task_row
from tests.services.stored import rows
from tests.web.conftest import Answer, Caller, Service, assert_problem
from web.handlers import ROUTE_TABLES

RELATIONS: tuple[frozenset[Relation], ...] = (
    frozenset(),
    frozenset({CREATOR}),
    frozenset({ASSIGNEE}),
    frozenset({VIEW}),
    frozenset({EDIT}),
)
SEVERAL = (frozenset({CREATOR, ASSIGNEE}), frozenset({ASSIGNEE, VIEW}), frozenset({ASSIGNEE, EDIT}))
DUE = now() + timedelta(days=2)
SOON = format_instant(DUE - timedelta(days=1))


@dataclass(frozen=True)
class Probe:
    """One request that needs `actions`. `{task}`, `{reminder}` (a common one of it), `{helper}` (who is assigned, and
    has it shared) and `{other}` (who is neither) in its path and body become ids."""

    actions: tuple[Action, ...]
    method: str
    path: str
    body: dict[str, Any] | None = None
    in_bin: bool = False


PROBES = (
    Probe((Action.SEE,), "GET", "/tasks/{task}"),
    Probe((Action.SEE,), "GET", "/tasks/{task}/reminders"),
    Probe((Action.SEE,), "GET", "/tasks/{task}/deliveries"),
    Probe((Action.SEE,), "PATCH", "/tasks/{task}", {}),
    Probe((Action.CHANGE,), "PATCH", "/tasks/{task}", {"title": "Changed"}),
    Probe((Action.CHANGE,), "PATCH", "/tasks/{task}", {"reminders": []}),
    Probe((Action.CHANGE_STATUS,), "PATCH", "/tasks/{task}", {"status": "completed"}),
    Probe((Action.CHANGE_STATUS, Action.ASSIGN), "PATCH", "/tasks/{task}", {"status": "todo", "assignee_ids": []}),
    Probe((Action.ASSIGN,), "PATCH", "/tasks/{task}", {"assignee_ids": ["{other}"]}),
    Probe((Action.ASSIGN,), "POST", "/tasks/{task}/assign", {"user_id": "{other}"}),
    Probe((Action.ASSIGN,), "DELETE", "/tasks/{task}/assign/{helper}"),
    Probe((Action.SHARE,), "POST", "/tasks/{task}/share", {"user_id": "{other}", "permission": "edit"}),
    Probe((Action.SHARE,), "DELETE", "/tasks/{task}/share/{helper}"),
    Probe((Action.DELETE,), "DELETE", "/tasks/{task}"),
    Probe((Action.RESTORE,), "POST", "/tasks/{task}/restore", in_bin=True),
    Probe((Action.RESTORE,), "GET", "/tasks/{task}", in_bin=True),
    Probe((Action.REMIND_ASSIGNEES,), "POST", "/tasks/{task}/reminders", {"remind_at": SOON}),
    Probe((Action.REMIND_ASSIGNEES,), "DELETE", "/reminders/{reminder}"),
    Probe((Action.REMIND_ME,), "POST", "/tasks/{task}/reminders", {"remind_at": SOON, "audience": "me"}),
    Probe((Action.REMIND_ME,), "POST", "/reminders/{reminder}/snooze", {"minutes": 5}),
)
WITHOUT_ROUTES = {Action.COMMENT, Action.EDIT_COMMENT, Action.DELETE_COMMENT}
"""Those whose routes are still to come."""

RIGHT_PROBES = (
    (Right.LOOK_UP_NAMES, "/users/lookup?q=a"),
    (Right.LIST_EVERY_TASK, "/tasks?scope=all"),
    (Right.ADMINISTER, "/users"),
    (Right.ADMINISTER, "/admin/users"),
    (Right.ADMINISTER, "/admin/tasks"),
    (Right.ADMINISTER, "/admin/jobs"),
    (Right.ADMINISTER, "/admin/runs"),
    (Right.ADMINISTER, "/admin/emails"),
    (Right.ADMINISTER, "/admin/logs"),
    (Right.ADMINISTER, "/admin/stats"),
)

CHANGES: tuple[dict[str, Any], ...] = (
    {"title": "T"},
    {"description": "D"},
    {"priority": "high"},
    {"category": "C"},
    {"due_at": SOON},
    {"reminders": [{"offset_minutes": 5, "audience": "me"}]},
    {"reminders": []},
    {"all_day": True},
    {"timezone": "Asia/Tokyo"},
    {"due_at": None},
    {"status": "in_progress"},
    {"assignee_ids": []},
)


@dataclass
class Cell:
    """A task of its own for one role, one relation and one probe."""

    role: Role
    relations: frozenset[Relation]
    probe: Probe
    task_id: UUID = field(default_factory=new_id)
    reminder_id: UUID = field(default_factory=new_id)

    @property
    def status(self) -> int:
        """What the contract's table answers; of a success, 200."""
        visible = is_allowed(self.role, self.relations, Action.RESTORE if self.probe.in_bin else Action.SEE)
        if not visible:
            return 404
        return 200 if all(is_allowed(self.role, self.relations, each) for each in self.probe.actions) else 403


async def cast(service: Service) -> dict[str, Caller]:
    """A person of each role, and some others: who owns the tasks, who is on them already, and who is not."""
    roles = {role.value: role for role in Role} | dict.fromkeys(("owner", "helper", "other"), Role.USER)
    return {name: await service.quick_person(name, role=role.value) for name, role in roles.items()}


async def put_in(service: Service, people: dict[str, Caller], cells: Sequence[Cell]) -> None:
    """The tasks of the cells, with their people and a reminder each."""
    ids = {name: UUID(caller.user["id"]) for name, caller in people.items()}
    tasks, assigned, shared, reminders = [], [], [], []
    for cell in cells:
        actor = ids[cell.role]
        creator = actor if CREATOR in cell.relations else ids["owner"]
        deleted_at = DUE if cell.probe.in_bin else None
        tasks.append(task_row(creator, id=cell.task_id, due_at=DUE, deleted_at=deleted_at))
        reminders.append(reminder_row(cell.task_id, creator, DUE, id=cell.reminder_id))
        assigned.append(assignee_row(cell.task_id, ids["helper"]))
        shared.append(share_row(cell.task_id, ids["helper"], "view"))
        if ASSIGNEE in cell.relations:
            assigned.append(assignee_row(cell.task_id, actor))
        for relation, permission in ((VIEW, Permission.VIEW), (EDIT, Permission.EDIT)):
            if relation in cell.relations:
                shared.append(share_row(cell.task_id, actor, permission.value))
    for model, made in ((Task, tasks), (TaskAssignee, assigned), (TaskShare, shared), (Reminder, reminders)):
        await add_rows(service.database, model, made)


async def snapshot(service: Service, task_ids: set[UUID]) -> dict[UUID, list[Any]]:
    """All that is stored of these tasks."""
    found: dict[UUID, list[Any]] = {task_id: [] for task_id in task_ids}
    for row in await rows(service.database, Task, Task.id.in_(task_ids)):
        found[row.id].append(row)
    for model in (TaskAssignee, TaskShare, Reminder):
        for row in await rows(service.database, model, model.task_id.in_(task_ids)):
            found[row.task_id].append(row)
    return found


async def send(people: dict[str, Caller], cell: Cell, **options: Any) -> Answer:
    """The cell's request."""
    ids = {
        "task": cell.task_id,
        "reminder": cell.reminder_id,
        "helper": people["helper"].user["id"],
        "other": people["other"].user["id"],
    }
    if cell.probe.body is not None:
        options["json"] = _filled(cell.probe.body, ids)
    return await people[cell.role](cell.probe.method, cell.probe.path.format(**ids), **options)


def _filled(value: Any, ids: dict[str, Any]) -> Any:
    """A body with the ids in their places."""
    if isinstance(value, dict):
        return {key: _filled(each, ids) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, ids) for each in value]
    return value.format(**ids) if isinstance(value, str) else value


def test_every_route_of_a_task_is_probed() -> None:
    def shape(path: str) -> str:
        return re.sub(r"\{\w+\}", "{}", path.removeprefix("/api/v1"))

    probed = {(probe.method, shape(probe.path)) for probe in PROBES}
    routes = {
        (route.method, shape(route.path))
        for table in ROUTE_TABLES
        for route in table.routes
        if shape(route.path).startswith(("/tasks/{}", "/reminders/{}", "/comments/{}"))
    }
    assert probed == routes
    assert {action for probe in PROBES for action in probe.actions} == set(Action) - WITHOUT_ROUTES
    assert {right for right, _ in RIGHT_PROBES} == set(Right)


@pytest.mark.heavy(on="mariadb")
async def test_each_cell(service: Service) -> None:
    people = await cast(service)
    cells = [Cell(*each) for each in product(Role, RELATIONS, PROBES)]
    assert {cell.status for cell in cells} == {200, 403, 404}
    await put_in(service, people, cells)
    refused = {cell.task_id for cell in cells if cell.status != 200}
    before = await snapshot(service, refused)

    async def attempt(cell: Cell) -> str | None:
        answer = await send(people, cell)
        if cell.status == answer.status or (cell.status == 200 and answer.status in (201, 204)):
            if cell.status != 200:
                assert_problem(answer, cell.status, {403: "forbidden", 404: "not_found"}[cell.status])
            return None
        who = f"{cell.role}, {sorted(cell.relations) or 'nothing to it'}"
        return f"{who}: {cell.probe.method} {cell.probe.path}: {answer.status}, not {cell.status}: {answer.text}"

    wrong: list[str] = []
    for start in range(0, len(cells), 12):
        wrong += filter(None, await asyncio.gather(*map(attempt, cells[start : start + 12])))
    assert wrong == []
    assert await snapshot(service, refused) == before


async def test_an_etag_to_match_gives_nothing_away(service: Service) -> None:
    """Who may not, is told so (or that there is nothing) before it is looked at whether the ETag is the present one."""
    people = await cast(service)
    cells = [
        Cell(Role.USER, relations, probe)
        for relations, probe in product(RELATIONS, PROBES)
        if probe.method in ("GET", "PATCH", "DELETE")
    ]
    refused = [cell for cell in cells if cell.status != 200]
    assert {(cell.probe.method, cell.status) for cell in refused} == set(product(("PATCH", "DELETE"), (403, 404))) | {
        ("GET", 404)
    }
    await put_in(service, people, refused)
    for cell in refused:
        for etag in ('"7"', '"1"', "*"):
            headers = {"If-None-Match" if cell.probe.method == "GET" else "If-Match": etag}
            answer = await send(people, cell, headers=headers)
            assert answer.status == cell.status, (cell.relations, cell.probe, answer.text)


async def test_each_right(service: Service) -> None:
    people = await cast(service)
    for (right, path), role in product(RIGHT_PROBES, Role):
        answer = await people[role]("GET", path)
        if role in RIGHTS[right]:
            assert answer.status == 200, (role, path, answer.text)
        else:
            assert_problem(answer, 403, "forbidden")


async def test_each_field_by_itself(service: Service) -> None:
    """A viewer changes nothing, an assignee all but the assignees, a manager the assignees alone."""
    people = await cast(service)
    who: tuple[tuple[Role, Relation | None], ...] = (
        (Role.USER, VIEW),
        (Role.USER, ASSIGNEE),
        (Role.USER, EDIT),
        (Role.MANAGER, None),
    )
    for role, relation in who:
        cell = Cell(role, frozenset({relation} if relation else ()), PROBES[0])
        await put_in(service, people, [cell])
        statuses = [(await people[role]("PATCH", f"/tasks/{cell.task_id}", json=change)).status for change in CHANGES]
        needed = {"status": Action.CHANGE_STATUS, "assignee_ids": Action.ASSIGN}
        assert statuses == [
            200 if is_allowed(role, cell.relations, needed.get(next(iter(change)), Action.CHANGE)) else 403
            for change in CHANGES
        ], (role, relation)


async def test_mine_is_what_i_have_to_do_with(service: Service) -> None:
    people = await cast(service)
    cells = [Cell(role, relations, PROBES[0]) for role, relations in product(Role, RELATIONS + SEVERAL)]
    await put_in(service, people, cells)
    for role in Role:
        mine = (await people[role]("GET", "/tasks?count=true")).json
        wanted = {str(cell.task_id) for cell in cells if cell.role == role and cell.relations}
        assert {task["id"] for task in mine["items"]} == wanted and mine["total"] == len(wanted)
    everybodys = (await people[Role.MANAGER]("GET", "/tasks?scope=all")).json
    assert {task["id"] for task in everybodys["items"]} == {str(cell.task_id) for cell in cells}
