"""Path, query and body are read and validated before the transaction opens: a slow client must not hold a
lock of the database."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from web.keys import BODY, IDS, QUERY, STORAGE, UPLOAD
from web.middlewares.authentication import judge_again
from web.parsing import read_body, read_ids, read_query
from web.routing import contract_of
from web.uploads import upload_of


@web.middleware
async def validation(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Leave the validated parts in the request."""
    contract = contract_of(request)
    if contract is None:
        return await handler(request)
    request[IDS] = read_ids(request, contract)
    query = read_query(request, contract.query)
    if query is not None:
        request[QUERY] = query
    if contract.takes_file is not None:
        async with upload_of(request, contract.takes_file, request.app[STORAGE]) as upload:
            request[UPLOAD] = upload
            await judge_again(request)
            return await handler(request)
    body = await read_body(request, contract)
    if body is not None:
        request[BODY] = body
    await judge_again(request)
    return await handler(request)
