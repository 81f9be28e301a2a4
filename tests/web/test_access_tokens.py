"""Access tokens over HTTP: what is not to the bit what we gave is a 401; keys rotate while people stay signed in."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import jwt

from scheduler.accounts.access_tokens import AccessTokens
from scheduler.clock import now
from scheduler.identifiers import new_id
from tests.web.conftest import Caller, Service, assert_problem, start

OLD, NEW = "the first of our secret keys, 32 or more", "the second of our secret keys, 32 or more"


async def test_any_bit_changed_is_a_401(service: Service) -> None:
    alice = await service.person()
    token = alice.token or ""
    assert (await alice("GET", "/users/me")).status == 200
    ends = [0, token.index("."), token.index(".") + 1, token.rindex("."), token.rindex(".") + 1, len(token) - 1]
    for index in (*ends, *random.Random(1).sample(range(len(token)), 20)):
        for bit in range(7):
            changed = chr(ord(token[index]) ^ 1 << bit)
            if changed.isprintable() and changed != " ":  # others are no HTTP
                alice.token = token[:index] + changed + token[index + 1 :]
                refused = await alice("GET", "/users/me")
                assert_problem(refused, 401, "unauthenticated")
                assert refused.headers["WWW-Authenticate"] == "Bearer"


async def test_signed_by_somebody_else(service: Service) -> None:
    alice = await service.person()
    secret = "a secret of somebody else's, who has read all that is public of this service"
    payload = jwt.decode(alice.token or "", options={"verify_signature": False})
    headers = jwt.get_unverified_header(alice.token or "")
    for algorithm in ("HS256", "HS512", "none"):
        key = "" if algorithm == "none" else secret
        alice.token = jwt.encode(payload, key, algorithm=algorithm, headers={**headers, "alg": algorithm})
        assert_problem(await alice("GET", "/users/me"), 401, "unauthenticated")


async def test_signed_by_us_for_what_is_not_there(service: Service) -> None:
    alice, bob = await service.person("Alice"), await service.person("Bob")
    tokens = AccessTokens(service.settings.secret_keys)
    bobs = tokens.verify(bob.token or "", now=now()).session_id
    for user_id, session_id in ((alice.user["id"], bobs), (bob.user["id"], new_id()), (new_id(), bobs)):
        caller = Caller(service.base, service.session, tokens.issue(user_id=user_id, session_id=session_id, now=now()))
        assert_problem(await caller("GET", "/users/me"), 401, "token_revoked")
    assert (await bob("GET", "/users/me")).status == 200


async def test_keys_rotate_without_signing_anybody_out(service: Service) -> None:
    async with AsyncExitStack() as exits:

        async def door(*keys: str) -> Caller:
            runner, base = await start(service.settings.model_copy(update={"secret_keys": keys}), service.database)
            exits.push_async_callback(runner.cleanup)
            return Caller(base, service.session)

        before, during, after = await door(OLD), await door(NEW, OLD), await door(NEW)
        body = {"email": "alice@example.com", "password": "correct horse battery", "name": "Alice"}
        signed_up = (await before("POST", "/auth/signup", json=body)).json
        during.token = after.token = signed_up["access_token"]
        assert (await during("GET", "/users/me")).status == 200
        # Once the old key is gone its access tokens are, too; they live for a quarter of an hour. Signed in one stays.
        assert_problem(await after("GET", "/users/me"), 401, "unauthenticated")
        refresh = {"refresh_token": signed_up["refresh_token"]}
        refreshed = await after("POST", "/auth/refresh-token", json=refresh)
        assert refreshed.status == 200
        during.token = after.token = refreshed.json["access_token"]
        assert (await after("GET", "/users/me")).status == (await during("GET", "/users/me")).status == 200
        both = (signed_up["access_token"], refreshed.json["access_token"])
        assert len({jwt.get_unverified_header(each)["kid"] for each in both}) == 2


SPELLINGS = {
    "Bearer {}": 200,
    "bearer {}": 200,
    "BEARER   {}": 200,
    "{}": 401,
    "Basic {}": 401,
    "Bearer{}": 401,
    "Bearer {0} {0}": 401,
    "Bearer {},": 401,
    'Bearer "{}"': 401,
    "Bearer": 401,
    "": 401,
}


async def test_the_header(service: Service) -> None:
    alice = await service.person()
    for spelling, status in SPELLINGS.items():
        answer = await alice("GET", "/users/me", headers={"Authorization": spelling.format(alice.token)})
        assert answer.status == status, spelling


async def test_a_token_in_the_address_is_none(service: Service) -> None:
    """It would stand in logs (RFC 6750, 5.3)."""
    alice = await service.person()
    answer = await service.nobody("GET", f"/users/me?access_token={alice.token}")
    assert_problem(answer, 401, "unauthenticated")
