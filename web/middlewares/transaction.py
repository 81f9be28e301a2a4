"""One request is one transaction: returning commits, raising rolls back. A deadlock runs the whole of it
again."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler
from sqlalchemy.ext.asyncio import AsyncSession

from web.keys import DATABASE, PASSWORDS, SESSION
from web.middlewares.authentication import judge_again
from web.patience import LONGEST_S, within
from web.routing import contract_of


@web.middleware
async def transaction(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Open the transaction that the route needs, and give its session to the handler."""
    contract = contract_of(request)
    if contract is None or not contract.opens_session:
        own_transactions = contract is not None and contract.uses_database
        work = _in_turn(request, handler) if contract is not None and contract.hashes else handler(request)
        return await (within(LONGEST_S, work) if own_transactions else work)
    return await within(LONGEST_S, _run(request, handler, writes=contract.writes))


async def _in_turn(request: web.Request, handler: Handler) -> web.StreamResponse:
    async with request.app[PASSWORDS].turns:
        await judge_again(request)
        return await handler(request)


async def _run(request: web.Request, handler: Handler, *, writes: bool) -> web.StreamResponse:
    database = request.app[DATABASE]

    async def attempt(session: AsyncSession) -> web.StreamResponse:
        request[SESSION] = session
        return await handler(request)

    if writes:
        return await database.retry_write(attempt)
    async with database.read() as session:
        return await attempt(session)
