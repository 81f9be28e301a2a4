"""Signing in: how many a second, what others notice of it, what it costs to know who is asking, and what the time that
an answer takes tells of who has an account."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from sqlalchemy import NullPool, create_engine, insert

from bench.measure import BenchError, median, quantile, wait_until
from bench.sink import ROOT
from bench.surroundings import DATABASE, Surroundings
from models import Task, User
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.authentication import Authentication
from scheduler.accounts.passwords import Passwords
from scheduler.clock import now
from scheduler.database import Database
from scheduler.identifiers import new_id
from scheduler.rate_limits.rule import parse
from scheduler.rate_limits.shared import RateLimits
from scheduler.redis_client import redis_client
from tests.factories import task_row, user_row
from tests.processes import free_port, spawn

PUNCTUAL_WEB = (str(Path(sys.executable).with_name("punctual")), "web")
READY = b"web.ready"
"""The log event after which it accepts connections."""
PASSWORD = "correct horse battery"
SECRET = "only for measuring and of no use elsewhere"
TASKS = 20
"""On the page that is asked for."""
EVERY_S = 0.002
"""Between two ordinary requests."""
RELABELLINGS = 2000

_numbers = itertools.count(1)


@contextlib.contextmanager
def web_process(on: Surroundings) -> Iterator[str]:
    """One `punctual web` process without rate limits; gives its address, and ends it with the block. Raises
    BenchError."""
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PUNCTUAL_")}
    environment |= {
        "PUNCTUAL_DATABASE_URL": on.database_url.replace("+aiomysql", ""),
        "PUNCTUAL_REDIS_URL": on.redis.url,
        "PUNCTUAL_MAIL_URL": on.sink.url,
        "PUNCTUAL_DATA_DIR": str(on.mariadb.folder / "punctual"),
        "PUNCTUAL_SECRET_KEY": SECRET,
        "PUNCTUAL_PORT": str(port),
        "PUNCTUAL_RATE_LIMIT_PASSWORD": "off",
        "PUNCTUAL_RATE_LIMIT_USER": "1000000/s",
    }
    path = on.mariadb.folder / "web.log"
    with open(path, "wb") as log:
        process = spawn(PUNCTUAL_WEB, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: READY in path.read_bytes(), 20, "a web process")
        yield f"http://127.0.0.1:{port}/api/v1"
    except BenchError as error:
        raise BenchError(f"{error}\n{path.read_text(errors='replace')[-2000:]}") from None
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def add_accounts(on: Surroundings, count: int) -> list[str]:
    """New accounts, all with one password, each with a page of tasks; returns their addresses."""
    passwords = Passwords(threads=1)
    password_hash = asyncio.run(passwords.hash(PASSWORD))
    passwords.close()
    users = [user_row(f"person-{next(_numbers)}", at=now(), password_hash=password_hash) for _ in range(count)]
    tasks = [task_row(user["id"], at=now()) for user in users[:1] for _ in range(TASKS)]
    engine = create_engine(on.mariadb.url(DATABASE, "mysql+pymysql"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(insert(User.__table__), users)
        connection.execute(insert(Task.__table__), tasks)
    engine.dispose()
    return [user["email"] for user in users]


# -- sign-ins, and everybody else meanwhile ------------------------------------------------------------------


@dataclass(frozen=True)
class Meanwhile:
    """Seconds that ordinary requests took, without and with sign-ins under way, and how many of those."""

    idle: list[float]
    busy: list[float]
    sign_ins_per_second: list[float]
    alone_per_second: float
    """With nothing else asked for."""


async def sign_in(client: aiohttp.ClientSession, base: str, email: str) -> str:
    """The access token. Raises BenchError."""
    async with client.post(f"{base}/auth/login", json={"email": email, "password": PASSWORD}) as response:
        answer = await response.json()
        if response.status != 200:
            raise BenchError(f"a sign-in was answered {response.status}: {answer}")
        return str(answer["access_token"])


@contextlib.asynccontextmanager
async def _signing_in(
    client: aiohttp.ClientSession, base: str, addresses: Sequence[str], at_once: int
) -> AsyncIterator[list[float]]:
    """So many sign-ins under way at any time; gives a list that the time of each grows by. Those under way at the end
    are waited for: what comes next must not pay for them."""
    ended: list[float] = []
    turns = itertools.cycle(addresses)
    over = False

    async def keep_on() -> None:
        while not over:
            await sign_in(client, base, next(turns))
            ended.append(time.perf_counter())

    tasks = [asyncio.create_task(keep_on()) for _ in range(at_once)]
    try:
        yield ended
    finally:
        over = True
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome


async def _ask(client: aiohttp.ClientSession, base: str, token: str, seconds: float) -> list[float]:
    """What reads and writes of somebody signed in take, one after another, for so long."""
    headers = {"Authorization": f"Bearer {token}"}
    found: list[float] = []
    until = time.perf_counter() + seconds
    for number in itertools.count():
        began = time.perf_counter()
        if began > until:
            return found
        if number % 10:
            request = client.get(f"{base}/tasks?limit={TASKS}", headers=headers)
        else:
            request = client.post(f"{base}/tasks", json={"title": "Water the plants"}, headers=headers)
        async with request as response:
            await response.read()
            if response.status not in (200, 201):
                raise BenchError(f"an ordinary request was answered {response.status}")
        found.append(time.perf_counter() - began)
        await asyncio.sleep(EVERY_S)
    raise AssertionError("unreachable")


async def meanwhile(base: str, addresses: Sequence[str], *, at_once: int, rounds: int, seconds: float) -> Meanwhile:
    """Ordinary requests without and with sign-ins under way, in turn. Raises BenchError."""
    idle: list[float] = []
    busy: list[float] = []
    rates = []
    # Sign-ins have connections of their own: what waits must wait in the service, and not here.
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as crowd,
        aiohttp.ClientSession() as client,
    ):
        token = await sign_in(client, base, addresses[0])
        await _ask(client, base, token, 1)
        async with _signing_in(crowd, base, addresses, at_once) as ended:
            await asyncio.sleep(1)
            before, began = len(ended), time.perf_counter()
            await asyncio.sleep(seconds)
            alone = (len(ended) - before) / (time.perf_counter() - began)
        for _ in range(rounds):
            await asyncio.sleep(0.5)
            idle.extend(await _ask(client, base, token, seconds))
            async with _signing_in(crowd, base, addresses, at_once) as ended:
                await asyncio.sleep(0.5)
                before, began = len(ended), time.perf_counter()
                busy.extend(await _ask(client, base, token, seconds))
                rates.append((len(ended) - before) / (time.perf_counter() - began))
    return Meanwhile(idle, busy, rates, alone)


# -- who is asking -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Microseconds to know who is asking, medians: of the parts, and of the whole with and without remembering."""

    signature: float
    signature_remembered: float
    trip_to_redis: float
    remembered: float
    read: float


async def authentication_cost(on: Surroundings, base: str, email: str, *, times: int) -> Cost:
    """In this process, with what a web process has."""
    async with aiohttp.ClientSession() as client:
        token = await sign_in(client, base, email)
    access_tokens = AccessTokens([SECRET])
    database, redis = Database(on.database_url), redis_client(on.redis.url, timeout_s=2)
    authentication, rate_limits = Authentication(access_tokens, database), RateLimits(redis)
    limit = parse("1000000/s")
    assert limit is not None

    async def enter() -> None:
        caller = await authentication.recognise(token, now=now())
        bucket = f"user:{caller.user_id.hex}"
        taken = await rate_limits.take([(bucket, limit)], epoch_of=caller.user_id)
        await authentication.authenticate(caller, epoch=taken.epoch, now=now())

    async def enter_afresh() -> None:
        authentication.forget()
        await enter()

    async def verify() -> None:
        access_tokens.verify(token, now=now())

    async def verify_afresh() -> None:
        access_tokens.forget()
        access_tokens.verify(token, now=now())

    async def trip() -> None:
        await rate_limits.take([("user:0", limit)], epoch_of=somebody)

    async def microseconds(work: Callable[[], Awaitable[None]]) -> float:
        found = []
        for _ in range(times):
            began = time.perf_counter()
            await work()
            found.append(time.perf_counter() - began)
        return median(found) * 1e6

    somebody = new_id()
    for _ in range(20):
        await enter_afresh()
    try:
        return Cost(
            signature=await microseconds(verify_afresh),
            signature_remembered=await microseconds(verify),
            trip_to_redis=await microseconds(trip),
            remembered=await microseconds(enter),
            read=await microseconds(enter_afresh),
        )
    finally:
        await authentication.close()
        await redis.aclose()
        await database.dispose()


# -- what the time tells -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """Seconds that answers took for addresses with and without an account, and how likely as great a difference of
    their medians is by chance."""

    known: list[float]
    unknown: list[float]
    chance: float

    @property
    def difference(self) -> float:
        return median(self.known) - median(self.unknown)


async def enumeration(base: str, addresses: Sequence[str], *, path: str, with_password: bool, status: int) -> Told:
    """One try for each address, and one for an address that nobody has, in random order. Raises BenchError."""
    known: list[float] = []
    unknown: list[float] = []
    tries = [(email, known) for email in addresses]
    tries += [(f"nobody-{next(_numbers)}@example.com", unknown) for _ in addresses]
    random.shuffle(tries)
    async with aiohttp.ClientSession() as client:
        for email, found in tries:
            body = {"email": email, "password": "not the right one"} if with_password else {"email": email}
            began = time.perf_counter()
            async with client.post(base + path, json=body) as response:
                await response.read()
                found.append(time.perf_counter() - began)
                if response.status != status:
                    raise BenchError(f"{path} was answered {response.status}")
            await asyncio.sleep(0.005)
    return Told(known, unknown, _chance(known, unknown))


def _chance(first: Sequence[float], second: Sequence[float]) -> float:
    """A permutation test: how many of so many random relabellings differ as much in their medians as these do."""
    observed = abs(median(first) - median(second))
    both = [*first, *second]
    as_great = 0
    for _ in range(RELABELLINGS):
        random.shuffle(both)
        as_great += abs(median(both[: len(first)]) - median(both[len(first) :])) >= observed
    return (as_great + 1) / (RELABELLINGS + 1)


def p99(seconds: Sequence[float]) -> float:
    """In milliseconds."""
    return quantile(seconds, 0.99) * 1000
