"""Assigning and sharing over HTTP: bodies, answers, ETags, and what is the same 404."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from tests.web.conftest import Service, assert_problem


async def test_assigning(service: Service) -> None:
    alice, bob, carol = [await service.quick_person(name) for name in ("Alice", "Bob", "Carol")]
    task = (await alice("POST", "/tasks", json={"title": "T"})).json
    path = f"/tasks/{task['id']}"
    body = {"user_id": bob.user["id"]}
    given = await alice("POST", path + "/assign", json=body)
    assert given.status == 200 and given.headers["ETag"] == '"2"'
    assert given.json["assignees"] == [{"id": bob.user["id"], "name": "Bob"}]
    assert given.json == (await bob("GET", path)).json
    again = await alice("POST", path + "/assign", json=body)
    assert again.status == 200 and again.raw == given.raw
    assert [each["id"] for each in (await bob("GET", "/tasks")).json["items"]] == [task["id"]]

    for stale in ('"1"', 'W/"2"'):
        one_more = {"user_id": carol.user["id"]}
        headers = {"If-Match": stale}
        assert_problem(
            await alice("POST", path + "/assign", json=one_more, headers=headers), 412, "precondition_failed"
        )
        taken = await alice("DELETE", f"{path}/assign/{bob.user['id']}", headers=headers)
        assert_problem(taken, 412, "precondition_failed")
    taken = await alice("DELETE", f"{path}/assign/{bob.user['id']}", headers={"If-Match": '"2"'})
    assert taken.status == 204 and not taken.raw
    assert_problem(await bob("GET", path), 404, "not_found")
    assert (await bob("GET", "/tasks")).json["items"] == []
    assert (await alice("GET", path)).json["version"] == 3


async def test_sharing(service: Service) -> None:
    alice, bob = [await service.quick_person(name) for name in ("Alice", "Bob")]
    task = (await alice("POST", "/tasks", json={"title": "T"})).json
    assert task["shared_with"] == []
    path = f"/tasks/{task['id']}"
    bobs = {"user_id": bob.user["id"]}
    to_view = await alice("POST", path + "/share", json={**bobs, "permission": "view"})
    assert to_view.status == 200 and to_view.headers["ETag"] == '"2"'
    assert to_view.json["shared_with"] == [{"id": bob.user["id"], "name": "Bob", "permission": "view"}]
    assert to_view.json == (await bob("GET", path)).json == (await bob("GET", "/tasks")).json["items"][0]
    assert_problem(await bob("PATCH", path, json={"title": "His"}), 403, "forbidden")
    to_edit = await alice("POST", path + "/share", json={**bobs, "permission": "edit"})
    assert to_edit.json["shared_with"][0]["permission"] == "edit" and to_edit.headers["ETag"] == '"3"'
    assert (await bob("PATCH", path, json={"title": "His"})).status == 200
    assert (await bob("DELETE", f"{path}/share/{bob.user['id']}", headers={"If-Match": '"3"'})).status == 412
    assert (await bob("DELETE", f"{path}/share/{bob.user['id']}", headers={"If-Match": '"4"'})).status == 204
    assert_problem(await bob("GET", path), 404, "not_found")
    assert (await alice("GET", path)).json["shared_with"] == []


async def test_what_is_wrong_is_pointed_at(service: Service) -> None:
    alice = await service.quick_person()
    task = (await alice("POST", "/tasks", json={"title": "T"})).json
    path = f"/tasks/{task['id']}"
    nobody = str(uuid4())
    for verb, body, field, code in (
        ("assign", {}, "/user_id", "required"),
        ("assign", {"user_id": nobody}, "/user_id", "not_found"),
        ("assign", {"user_id": "x"}, "/user_id", None),
        ("assign", {"user_id": None}, "/user_id", None),
        ("assign", {"user_id": nobody, "permission": "edit"}, "/permission", "unknown_field"),
        ("share", {"user_id": nobody}, "/permission", "required"),
        ("share", {"user_id": nobody, "permission": "view"}, "/user_id", "not_found"),
        ("share", {"user_id": alice.user["id"], "permission": "own"}, "/permission", "not_a_choice"),
        ("share", {"user_id": alice.user["id"], "permission": "EDIT"}, "/permission", "not_a_choice"),
        ("share", {"user_id": alice.user["id"], "permission": "edit"}, "/user_id", "creator"),
    ):
        answer = await alice("POST", f"{path}/{verb}", json=body)
        assert_problem(answer, 422, "validation_failed")
        (error,) = answer.json["errors"]
        assert error["field"] == field, answer.text
        assert code is None or error["code"] == code, answer.text
    for verb in ("assign", "share"):
        for user_id in (nobody, "x", "%00", alice.user["id"]):
            assert_problem(await alice("DELETE", f"{path}/{verb}/{user_id}"), 404, "not_found")
        assert (await alice("GET", f"{path}/{verb}")).status == 405
    assert (await alice("GET", path)).json == task


async def test_who_does_not_see_the_task_learns_nothing_of_it(service: Service) -> None:
    """Nor whether somebody is on it: the answers are the same for a task that is not there."""
    alice, bob, carol = [await service.quick_person(name) for name in ("Alice", "Bob", "Carol")]
    task = (await alice("POST", "/tasks", json={"title": "T", "assignee_ids": [bob.user["id"]]})).json
    answers = []
    for task_id in (task["id"], str(uuid4()), "x"):
        for user_id in (bob.user["id"], carol.user["id"], str(uuid4())):
            body = {"user_id": user_id}
            answers += [
                await carol("POST", f"/tasks/{task_id}/assign", json=body),
                await carol("POST", f"/tasks/{task_id}/share", json={**body, "permission": "edit"}),
                await carol("DELETE", f"/tasks/{task_id}/assign/{user_id}"),
                await carol("DELETE", f"/tasks/{task_id}/share/{user_id}"),
            ]
    shown = []
    for answer in answers:
        assert_problem(answer, 404, "not_found")
        shown.append({key: value for key, value in answer.json.items() if key != "request_id"})
    assert all(each == shown[0] for each in shown)
    # Who sees it but may not, is told just that, whoever is asked for.
    for user_id in (bob.user["id"], carol.user["id"], str(uuid4())):
        for verb in ("assign", "share"):
            assert_problem(await bob("DELETE", f"/tasks/{task['id']}/{verb}/{user_id}"), 403, "forbidden")


async def test_not_in_the_bin(service: Service) -> None:
    alice, bob = [await service.quick_person(name) for name in ("Alice", "Bob")]
    task = (await alice("POST", "/tasks", json={"title": "T", "assignee_ids": [bob.user["id"]]})).json
    path = f"/tasks/{task['id']}"
    await alice("DELETE", path)
    body = {"user_id": bob.user["id"]}
    assert_problem(await alice("POST", path + "/assign", json=body), 409, "already_deleted")
    assert_problem(await alice("POST", path + "/share", json={**body, "permission": "view"}), 409, "already_deleted")
    assert_problem(await alice("DELETE", f"{path}/assign/{bob.user['id']}"), 409, "already_deleted")
    assert_problem(await bob("POST", path + "/share", json={**body, "permission": "edit"}), 404, "not_found")


async def test_of_many_with_one_version_one_wins(service: Service) -> None:
    alice, bob = [await service.quick_person(name) for name in ("Alice", "Bob")]
    task = (await alice("POST", "/tasks", json={"title": "T"})).json
    path = f"/tasks/{task['id']}"
    share = {"user_id": bob.user["id"], "permission": "view"}
    requests = [
        alice("POST", path + "/assign", json={"user_id": bob.user["id"]}, headers={"If-Match": '"1"'}),
        alice("POST", path + "/share", json=share, headers={"If-Match": '"1"'}),
        alice("PATCH", path, json={"assignee_ids": [bob.user["id"]]}, headers={"If-Match": '"1"'}),
    ]
    assert sorted(answer.status for answer in await asyncio.gather(*requests)) == [200, 412, 412]
    assert (await alice("GET", path)).json["version"] == 2
