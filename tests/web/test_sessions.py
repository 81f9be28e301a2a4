"""The sessions list, and signing out elsewhere: at once, in every web process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import update

from models import Activity, Session
from scheduler.accounts.sign_in import SESSION_LIFETIME
from scheduler.clock import now, parse_instant
from scheduler.database import Database
from tests.services.stored import rows
from tests.web.conftest import PASSWORD, Caller, Service, assert_problem, start


@pytest.fixture
async def other(service: Service) -> AsyncIterator[Caller]:
    """Nobody at the door of another web process, with connections of its own to the same database and Redis."""
    database = Database(service.settings.database_url)
    runner, base = await start(service.settings, database)
    yield Caller(base, service.session)
    await runner.cleanup()
    await database.dispose()


async def sign_in(service: Service, person: Caller, *, program: str = "a browser") -> Caller:
    """The same person on another device."""
    body = {"email": person.user["email"], "password": PASSWORD}
    answer = await service.nobody("POST", "/auth/login", json=body, headers={"User-Agent": program})
    assert answer.status == 200, answer.text
    tokens = answer.json
    return Caller(service.base, service.session, tokens["access_token"], tokens["user"], tokens["refresh_token"])


def at(door: Caller, person: Caller) -> Caller:
    return Caller(door.base, person.session, person.token, person.user, person.refresh_token)


@pytest.mark.heavy(on="mariadb")
async def test_where_i_am_signed_in(service: Service) -> None:
    alice = await service.person("Alice")
    await service.person("Bob")
    phone = await sign_in(service, alice, program="A phone/1.0")
    found = (await phone("GET", "/auth/sessions?count=true")).json
    assert found["total"] == 2 and found["next_cursor"] is None
    newest, oldest = found["items"]
    assert set(newest) == {"id", "created_at", "last_used_at", "ip", "user_agent", "current"}
    assert (newest["current"], oldest["current"]) == (True, False)
    assert (newest["user_agent"], newest["ip"]) == ("A phone/1.0", "127.0.0.1")
    assert newest["created_at"] > oldest["created_at"]
    again = (await alice("GET", "/auth/sessions")).json["items"]
    assert [each["current"] for each in again] == [False, True]


async def test_its_pages(service: Service) -> None:
    alice = await service.person()
    for _ in range(2):
        await sign_in(service, alice)
    first = await alice("GET", "/auth/sessions?limit=2")
    assert 'rel="next"' in first.headers["Link"]
    second = await alice("GET", f"/auth/sessions?limit=2&cursor={first.json['next_cursor']}")
    seen = [each["id"] for page in (first, second) for each in page.json["items"]]
    assert len(seen) == len(set(seen)) == 3 and second.json["next_cursor"] is None
    assert_problem(await alice("GET", "/auth/sessions?cursor=x"), 400, "bad_cursor")


async def test_signing_out_elsewhere_works_at_once_in_every_process(service: Service, other: Caller) -> None:
    alice = await service.person()
    phone = await sign_in(service, alice)
    for caller in (phone, at(other, phone), at(other, alice)):
        assert (await caller("GET", "/users/me")).status == 200
    (phones,) = [each for each in (await phone("GET", "/auth/sessions")).json["items"] if each["current"]]
    assert (await alice("DELETE", f"/auth/sessions/{phones['id']}")).status == 204
    assert_problem(await at(other, phone)("GET", "/users/me"), 401, "token_revoked")
    assert_problem(await phone("GET", "/users/me"), 401, "token_revoked")
    refresh = {"refresh_token": phone.refresh_token}
    assert_problem(await other("POST", "/auth/refresh-token", json=refresh), 401, "token_revoked")
    # Whoever did it goes on, and sees one session less.
    assert len((await at(other, alice)("GET", "/auth/sessions")).json["items"]) == 1
    assert_problem(await alice("DELETE", f"/auth/sessions/{phones['id']}"), 404, "not_found")
    (written,) = await rows(service.database, Activity, Activity.action == "session_ended")
    assert str(written.target_id) == phones["id"] and written.ip == "127.0.0.1"


async def test_one_may_end_the_session_that_one_uses(service: Service) -> None:
    alice = await service.person()
    (mine,) = (await alice("GET", "/auth/sessions")).json["items"]
    assert (await alice("DELETE", f"/auth/sessions/{mine['id']}")).status == 204
    assert_problem(await alice("GET", "/users/me"), 401, "token_revoked")


async def test_others_sessions_are_not_there(service: Service) -> None:
    alice, bob, admin = await service.person("Alice"), await service.person("Bob"), await service.admin()
    (bobs,) = (await bob("GET", "/auth/sessions")).json["items"]
    for caller in (alice, admin):
        assert_problem(await caller("DELETE", f"/auth/sessions/{bobs['id']}"), 404, "not_found")
    assert_problem(await alice("DELETE", "/auth/sessions/none"), 404, "not_found")
    assert (await bob("GET", "/users/me")).status == 200


async def test_if_match(service: Service) -> None:
    alice = await service.person()
    phone = await sign_in(service, alice)
    (phones,) = [each for each in (await phone("GET", "/auth/sessions")).json["items"] if each["current"]]
    path = f"/auth/sessions/{phones['id']}"
    assert_problem(await alice("DELETE", path, headers={"If-Match": '"x"'}), 412, "precondition_failed")
    assert (await phone("GET", "/users/me")).status == 200
    assert (await alice("DELETE", path, headers={"If-Match": "*"})).status == 204


async def test_one_that_was_not_used_for_thirty_days_is_over(service: Service) -> None:
    alice = await service.person()
    phone = await sign_in(service, alice)
    (phones,) = [each for each in (await phone("GET", "/auth/sessions")).json["items"] if each["current"]]
    assert parse_instant(phones["last_used_at"]) <= now()
    async with service.database.write() as session:
        long_ago = now() - SESSION_LIFETIME - timedelta(seconds=1)
        await session.execute(update(Session).where(Session.user_agent == "a browser").values(last_used_at=long_ago))
    assert len((await alice("GET", "/auth/sessions")).json["items"]) == 1
    assert_problem(await alice("DELETE", f"/auth/sessions/{phones['id']}"), 404, "not_found")


async def test_logout_and_reuse_end_it_in_every_process(service: Service, other: Caller) -> None:
    alice = await service.person()
    phone = await sign_in(service, alice)
    assert (await at(other, alice)("GET", "/users/me")).status == 200
    assert (await at(other, phone)("GET", "/users/me")).status == 200
    assert (await alice("POST", "/auth/logout")).status == 204
    assert_problem(await at(other, alice)("GET", "/users/me"), 401, "token_revoked")
    # A refresh token that is used twice ends its session.
    for status in (200, 401):
        answer = await service.nobody("POST", "/auth/refresh-token", json={"refresh_token": phone.refresh_token})
        assert answer.status == status
    assert_problem(await at(other, phone)("GET", "/users/me"), 401, "token_revoked")


async def test_an_administrator_signs_somebody_out_in_every_process(service: Service, other: Caller) -> None:
    alice, admin = await service.person(), await service.admin()
    assert (await at(other, alice)("GET", "/users/me")).status == 200
    assert (await admin("POST", f"/admin/users/{alice.user['id']}/sessions/revoke")).status == 204
    assert_problem(await at(other, alice)("GET", "/users/me"), 401, "token_revoked")
    assert (await at(other, admin)("GET", "/users/me")).status == 200


async def test_a_new_time_zone_counts_in_every_process(service: Service, other: Caller) -> None:
    alice = await service.person()
    assert (await at(other, alice)("POST", "/tasks", json={"title": "T"})).json["timezone"] == "UTC"
    assert (await alice("PATCH", "/users/me", json={"timezone": "Asia/Tokyo"})).status == 200
    assert (await at(other, alice)("POST", "/tasks", json={"title": "T"})).json["timezone"] == "Asia/Tokyo"
