"""One request is one transaction: returning commits, raising rolls back. A deadlock runs the whole of it
again."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler
from sqlalchemy.ext.asyncio import AsyncSession

from web.keys import DATABASE, SESSION
from web.patience import LONGEST_S, within
from web.routing import contract_of


@web.middleware
async def transaction(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Open the transaction that the route needs, and give its session to the handler."""
    contract = contract_of(request)
    if contract is None or not contract.opens_session:
        own_transactions = contract is not None and contract.uses_database
        return await (within(LONGEST_S, handler(request)) if own_transactions else handler(request))
    if SESSION in request:  # authentication opened it already, for a request that only reads
        return await handler(request)
    return await within(LONGEST_S, _run(request, handler, writes=contract.writes))


async def _run(request: web.Request, handler: Handler, *, writes: bool) -> web.StreamResponse:
    database = request.app[DATABASE]

    async def attempt(session: AsyncSession) -> web.StreamResponse:
        request[SESSION] = session
        return await handler(request)

    if writes:
        return await database.retry_write(attempt)
    async with database.read() as session:
        return await attempt(session)
