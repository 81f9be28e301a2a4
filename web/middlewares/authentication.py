"""Who is asking: `Authorization: Bearer` becomes an Actor, before anything else of the request is looked
at."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from scheduler import clock
from scheduler.access import Actor, Role
from scheduler.accounts.sign_in import authenticate
from scheduler.errors import Forbidden, Unauthenticated
from web.keys import ACCESS_TOKENS, ACTOR, DATABASE, SESSION, SETTINGS
from web.patience import LONGEST_S, within
from web.routing import Route, contract_of


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raise Unauthenticated or Forbidden where the route asks for more than the caller has."""
    contract = contract_of(request)
    if contract is None or contract.auth is None:
        return await handler(request)
    token = bearer_token(request)
    if contract.opens_session and not contract.writes:
        # What only reads has no body to wait for: one transaction serves it whole.
        return await within(LONGEST_S, _read_in_one(request, handler, contract, token))
    # A transaction of its own, ended before the body is read: a slow body must hold no connection of the
    # pool.
    request[ACTOR] = await within(LONGEST_S, _authenticate(request.app, token))
    _check_allowed(request, contract)
    return await handler(request)


async def _read_in_one(request: web.Request, handler: Handler, contract: Route, token: str) -> web.StreamResponse:
    app = request.app
    async with app[DATABASE].read() as session:
        request[ACTOR] = await authenticate(session, token=token, access_tokens=app[ACCESS_TOKENS], now=clock.now())
        _check_allowed(request, contract)
        request[SESSION] = session
        return await handler(request)


async def _authenticate(app: web.Application, token: str) -> Actor:
    async with app[DATABASE].read() as session:
        return await authenticate(session, token=token, access_tokens=app[ACCESS_TOKENS], now=clock.now())


def _check_allowed(request: web.Request, contract: Route) -> None:
    actor = request[ACTOR]
    if contract.auth == "admin" and actor.role is not Role.ADMIN:
        raise Forbidden("Only an administrator may do this.")
    if (
        contract.writes
        and not actor.email_verified
        and not contract.open_to_unverified
        and request.app[SETTINGS].require_verified_email
    ):
        raise Forbidden(
            "Verify your e-mail address first: the link is in the e-mail that we sent.",
            code="email_unverified",
        )


def bearer_token(request: web.Request) -> str:
    """The token in the header (RFC 6750, 2.1; the scheme's case does not matter). Raises Unauthenticated
    without one."""
    given = request.headers.getall("Authorization", [])
    scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise Unauthenticated()
    return token
