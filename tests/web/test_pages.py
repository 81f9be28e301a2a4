"""The pages behind the links of e-mails: GET changes nothing, POST acts, errors are pages with the right
status."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from sqlalchemy import func, select

from models import Email, NotificationPreference, User
from scheduler.clock import now
from scheduler.links import Links
from tests.web.conftest import Answer, Caller, Service
from tests.web.test_tasks import ahead


def assert_page(answer: Answer, status: int) -> None:
    """A page of ours: complete, without script, and allowed to load nothing but our style sheet."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"  # the token must not leak to anybody
    assert '<html lang="en">' in answer.text and "<h1>" in answer.text and "<title>" in answer.text
    assert "<script" not in answer.text and "style=" not in answer.text


async def a_reminded_task(service: Service, alice: Caller, **fields: object) -> tuple[dict[str, object], str]:
    """A task with a reminder, and the token that its e-mail would carry."""
    body = {
        "title": "<b>Rent</b> עברית",
        "due_at": ahead(days=1),
        "reminders": [{"offset_minutes": 5}],
        **fields,
    }
    task = (await alice("POST", "/tasks", json=body)).json
    links = Links(service.settings.secret_keys, public_url=service.settings.public_url)
    reminder_id = UUID(task["reminders"][0]["id"])
    return task, links.token(reminder_id=reminder_id, user_id=UUID(alice.user["id"]), now=now())


async def test_done(service: Service) -> None:
    alice = await service.person()
    task, token = await a_reminded_task(service, alice)
    shown = await service.nobody("GET", f"//act/done?token={token}&utm_source=mail")
    assert_page(shown, 200)
    assert "&lt;b&gt;Rent&lt;/b&gt; עברית" in shown.text
    assert (await alice("GET", f"/tasks/{task['id']}")).json == task
    form = re.search(r'<form method="post" action="([^"]+)"><button>', shown.text)
    assert form is not None and form[1] == f"/act/done?token={token}"
    for _ in range(2):
        assert_page(await service.nobody("POST", f"/{form[1]}"), 200)
    done = (await alice("GET", f"/tasks/{task['id']}")).json
    assert done["status"] == "completed" and done["version"] == 2
    assert "already" in (await service.nobody("GET", f"//act/done?token={token}")).text


async def test_who_may_only_view_a_task_is_told_so(service: Service) -> None:
    alice, bob = await service.quick_person("Alice"), await service.quick_person("Bob")
    task = (await alice("POST", "/tasks", json={"title": "Rent", "due_at": ahead(days=1)})).json
    path = f"/tasks/{task['id']}"
    await alice("POST", path + "/share", json={"user_id": bob.user["id"], "permission": "view"})
    mine = (await bob("POST", path + "/reminders", json={"offset_minutes": 5, "audience": "me"})).json
    links = Links(service.settings.secret_keys, public_url=service.settings.public_url)
    token = links.token(reminder_id=UUID(mine["id"]), user_id=UUID(bob.user["id"]), now=now())
    for page in ("open", "done"):
        assert_page(await service.nobody("GET", f"//act/{page}?token={token}"), 200)
    assert_page(await service.nobody("POST", f"//act/done?token={token}"), 403)
    assert_page(await service.nobody("POST", f"//act/snooze?token={token}&minutes=10"), 200)
    assert (await bob("GET", path)).json["status"] == "todo"
    assert (await alice("DELETE", f"{path}/share/{bob.user['id']}")).status == 204
    for method, page in (("GET", "open"), ("GET", "done"), ("POST", "done"), ("POST", "snooze")):
        gone = await service.nobody(method, f"//act/{page}?token={token}" + "&minutes=10" * (page == "snooze"))
        assert_page(gone, 404)
        assert "Rent" not in gone.text


async def test_snooze(service: Service) -> None:
    alice = await service.person(timezone="Pacific/Auckland")
    task, token = await a_reminded_task(service, alice)
    path = f"/tasks/{task['id']}/reminders"
    for query in ("minutes=10", "until=tomorrow"):
        assert_page(await service.nobody("GET", f"//act/snooze?token={token}&{query}"), 200)
        assert len((await alice("GET", path)).json["items"]) == 1
    assert_page(await service.nobody("POST", f"//act/snooze?token={token}&minutes=10"), 200)
    mine = [each for each in (await alice("GET", path)).json["items"] if each["audience"] == "me"]
    assert len(mine) == 1 and mine[0]["remind_at"] < ahead(minutes=11)
    tomorrow = await service.nobody("POST", f"//act/snooze?token={token}&until=tomorrow")
    assert_page(tomorrow, 200)
    assert "09:00 (Pacific/Auckland)" in tomorrow.text
    for wrong in ("", "&minutes=0", "&minutes=x", "&until=never", "&minutes=1&until=tomorrow"):
        assert_page(await service.nobody("POST", f"//act/snooze?token={token}{wrong}"), 422)


async def test_open(service: Service) -> None:
    alice = await service.person()
    task, token = await a_reminded_task(service, alice, description="line\nline <script>")
    opened = await service.nobody("GET", f"//act/open?token={token}")
    assert_page(opened, 200)
    assert "&lt;script&gt;" in opened.text and "(UTC)" in opened.text
    assert (await service.nobody("POST", f"//act/open?token={token}")).status == 405
    await alice("PATCH", f"/tasks/{task['id']}", json={"reminders": []})
    assert_page(await service.nobody("GET", f"//act/open?token={token}"), 404)


async def test_unsubscribe_by_hand_and_by_one_click(service: Service) -> None:
    alice = await service.person()
    _, token = await a_reminded_task(service, alice)
    address = f"//act/unsubscribe?token={token}"

    async def choices() -> list[bool]:
        async with service.database.read() as session:
            return list((await session.execute(select(NotificationPreference.enabled))).scalars())

    assert_page(await service.nobody("GET", address), 200)
    assert await choices() == []
    one_click = {
        "data": "List-Unsubscribe=One-Click",
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    }
    assert_page(await service.nobody("POST", address, **one_click), 200)
    assert await choices() == [False]
    stopped = await service.nobody("GET", address)
    assert "Turn them on again" in stopped.text and await choices() == [False]
    again = re.search(r'action="([^"]+)"', stopped.text)
    assert again is not None
    assert_page(await service.nobody("POST", "/" + again[1].replace("&amp;", "&")), 200)
    assert await choices() == [True]
    assert_page(await service.nobody("POST", address), 200)
    assert await choices() == [False]
    assert "again" in parse_qs(urlsplit(again[1].replace("&amp;", "&")).query)


async def test_verify(service: Service) -> None:
    alice = await service.person()
    async with service.database.read() as session:
        message = (await session.execute(select(Email))).scalar_one()
    from email import message_from_bytes, policy

    parsed = message_from_bytes(message.message, policy=policy.default)
    part = parsed.get_body(("plain",))
    assert part is not None
    link = re.search(r"/act/verify\?token=[\w-]+", part.get_content())
    assert link is not None
    assert_page(await service.nobody("GET", "/" + link[0]), 200)
    assert (await alice("GET", "/users/me")).json["email_verified"] is False
    assert_page(await service.nobody("POST", "/" + link[0]), 200)
    assert (await alice("GET", "/users/me")).json["email_verified"] is True
    for method in ("GET", "POST"):
        assert_page(await service.nobody(method, "/" + link[0]), 422)


async def test_links_that_do_not_work(service: Service) -> None:
    alice = await service.person()
    task, token = await a_reminded_task(service, alice)
    links = Links(service.settings.secret_keys, public_url="")
    reminder_id, user_id = UUID(task["reminders"][0]["id"]), UUID(alice.user["id"])  # type: ignore[index]
    old = links.token(reminder_id=reminder_id, user_id=user_id, now=now() - timedelta(days=91))
    strange = links.token(reminder_id=reminder_id, user_id=UUID(int=1), now=now())
    for bad in (old, strange, token[:-2] + "AA", "x", "%F0%9F%A6%84", "a" * 900, "%00"):
        for method in ("GET", "POST"):
            assert_page(await service.nobody(method, f"//act/done?token={bad}"), 422)
    assert_page(await service.nobody("GET", "//act/done"), 422)
    assert_page(await service.nobody("GET", f"//act/done?token={token}&token={token}"), 422)
    assert_page(await service.nobody("GET", "//act/nothing"), 404)
    assert_page(await service.nobody("DELETE", "//act/done"), 405)
    # An old link must still stop e-mails.
    assert_page(await service.nobody("POST", f"//act/unsubscribe?token={old}"), 200)

    carol = await service.person("Carol")
    hers = links.token(reminder_id=reminder_id, user_id=UUID(carol.user["id"]), now=now())
    assert_page(await service.nobody("POST", f"//act/done?token={hers}"), 404)
    assert (await alice("GET", f"/tasks/{task['id']}")).json == task
    await alice("DELETE", f"/tasks/{task['id']}")
    assert_page(await service.nobody("POST", f"//act/done?token={token}"), 409)
    async with service.database.write() as session:
        user = await session.get(User, user_id)
        assert user is not None
        user.status = "deactivated"
    assert_page(await service.nobody("POST", f"//act/done?token={token}"), 422)
    async with service.database.read() as session:
        assert (await session.execute(select(func.count()).select_from(NotificationPreference))).scalar_one() == 1


async def test_the_style_sheet(service: Service) -> None:
    style = await service.nobody("GET", "//act/style.css")
    assert style.status == 200 and style.headers["Content-Type"].startswith("text/css")
