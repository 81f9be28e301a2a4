"""`Idempotency-Key`: a POST that is sent again gets the answer of the first, byte for byte (contract, section 1).

Two middlewares. `idempotency` stands before the body is looked into, so that a key that was used for another body is
found out whatever is wrong with this one; `kept_answer` stands innermost, inside the transaction, and writes the answer
down with the effect. What handlers raise is kept once their transaction is rolled back, and so is the answer of those
that open transactions of their own: if the process dies in between, the key is given up on, and the request that is
sent again finds what the first has done (an address that is taken, say).

Every answer to a request that was read and whose caller is known is kept, with these exceptions: failures on our side,
and what says "not now" (429). Then nothing was done, and the key may be used again.
"""

from __future__ import annotations

import asyncio
from typing import TypeGuard

from aiohttp import web
from aiohttp.typedefs import Handler

from scheduler import clock
from scheduler.database import Database
from scheduler.errors import PunctualError
from scheduler.idempotency import Answer, Claim, IdempotencyInProgress, claim, fingerprint_of, keep, release
from scheduler.logs import get_logger
from web.keys import ACTOR, ANSWER_IS_KEPT, DATABASE, ENCRYPTION, IDEMPOTENCY_CLAIM, REQUEST_ID, SESSION
from web.middlewares.authentication import judge_again
from web.parsing import read_idempotency_key, read_raw_body
from web.patience import LONGEST_S, within
from web.problems import HTTPProblem, of_domain, of_request
from web.routing import Route, contract_of

REPLAYED = "Idempotent-Replayed"
NOT_NOW = frozenset({401, 408, 413, 429})
"""Refused before it was looked at as a whole, or for now."""
KEEP_S = 5.0
"""For an answer that is kept after its work is done."""
RELEASE_S = 2.0
"""A caller waits so long, at the most, until a key is free again; it is freed all the same."""

log = get_logger("web")

_releases: set[asyncio.Task[None]] = set()


@web.middleware
async def idempotency(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with what is kept for the key, or have the request worked on and the answer kept."""
    contract = contract_of(request)
    key = read_idempotency_key(request, contract) if contract is not None else None
    if contract is None or key is None:
        return await handler(request)
    fingerprint = fingerprint_of(method=request.method, path=request.raw_path, body=await _body(request, contract))
    await judge_again(request)  # what is given again is for who may have it now
    claimed = await within(
        LONGEST_S,
        claim(
            request.app[DATABASE],
            actor=request[ACTOR],
            key=key,
            fingerprint=fingerprint,
            encryption=request.app[ENCRYPTION],
            now=clock.now(),
        ),
    )
    if isinstance(claimed, Answer):
        headers = {**claimed.headers, REPLAYED: "true"}
        return web.Response(status=claimed.status, body=claimed.body or None, headers=headers)
    request[IDEMPOTENCY_CLAIM] = claimed
    return await _work(request, handler, claimed)


async def _work(request: web.Request, handler: Handler, claimed: Claim) -> web.StreamResponse:
    is_kept = False
    try:
        try:
            response = await handler(request)
            is_kept = request.get(ANSWER_IS_KEPT, False)
        except IdempotencyInProgress:
            raise  # another request has taken the key over, and does the work
        except (PunctualError, HTTPProblem) as error:
            problem = of_domain(error) if isinstance(error, PunctualError) else of_request(error)
            if not _is_to_keep(problem.status):
                raise
            response = problem.response(request[REQUEST_ID])
        if not is_kept:
            is_kept = await _keep_after(request, claimed, response)
        return response
    finally:
        if not is_kept:
            await _release(request.app[DATABASE], claimed)


@web.middleware
async def kept_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write the answer down in the transaction that it speaks of."""
    if IDEMPOTENCY_CLAIM not in request:
        return await handler(request)
    request[ANSWER_IS_KEPT] = False  # a deadlock runs the transaction again
    response = await handler(request)
    contract = contract_of(request)
    if contract is not None and contract.writes and SESSION in request and _can_be_kept(response):
        answer = _answer_of(response)
        await keep(
            request[SESSION], claim=request[IDEMPOTENCY_CLAIM], answer=answer, encryption=request.app[ENCRYPTION]
        )
        request[ANSWER_IS_KEPT] = True
    return response


async def _body(request: web.Request, contract: Route) -> bytes:
    """What counts of the body: nothing where whatever is sent is not looked at; of a file, which is not held in memory,
    how long it is."""
    if contract.takes_file is not None:
        return str(request.content_length).encode()
    return await read_raw_body(request) if contract.body is not None else b""


def _is_to_keep(status: int) -> bool:
    return status < 500 and status not in NOT_NOW


def _can_be_kept(response: web.StreamResponse) -> TypeGuard[web.Response]:
    return isinstance(response, web.Response) and _is_to_keep(response.status)


def _answer_of(response: web.Response) -> Answer:
    """With the handler's own headers: those that middlewares add belong to each answer anew."""
    body = response.body if isinstance(response.body, bytes) else b""
    return Answer(
        status=response.status, headers={str(name): value for name, value in response.headers.items()}, body=body
    )


async def _keep_after(request: web.Request, claimed: Claim, response: web.StreamResponse) -> bool:
    """Keep an answer in a transaction of its own; returns False for one that can't be. The caller gets it in any case:
    what it speaks of is done."""
    if not _can_be_kept(response):
        return False
    try:
        async with asyncio.timeout(KEEP_S), request.app[DATABASE].write() as session:
            await keep(session, claim=claimed, answer=_answer_of(response), encryption=request.app[ENCRYPTION])
    except Exception as error:
        # The key stays as it is, to be given up on: at once somebody would do again what is done.
        log.warning("idempotency.not_kept", **claimed.log_context(), error=type(error).__name__)
    return True


async def _release(database: Database, claimed: Claim) -> None:
    async def free() -> None:
        try:
            async with database.write() as session:
                await release(session, claim=claimed)
        except Exception as error:
            # The database is away, mostly: then the key is free when it is given up on.
            log.warning("idempotency.not_released", **claimed.log_context(), error=type(error).__name__)

    task = asyncio.create_task(free())
    _releases.add(task)
    task.add_done_callback(_releases.discard)
    await asyncio.wait({task}, timeout=RELEASE_S)
