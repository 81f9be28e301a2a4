"""Who is asking, and whether the route is open to them, before anything else of the request is looked at."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from scheduler import clock
from scheduler.access import Right, has_right
from scheduler.accounts.scopes import grants
from scheduler.errors import Forbidden
from web.keys import ACTOR, AUTHENTICATION, CALLER, SETTINGS, TAKEN
from web.patience import LONGEST_S, within
from web.routing import Route, contract_of


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raise Unauthenticated or Forbidden where the route asks for more than the caller has."""
    contract = contract_of(request)
    if contract is None or contract.auth is None:
        return await handler(request)
    known, caller, epoch, now = request.app[AUTHENTICATION], request[CALLER], request[TAKEN].epoch, clock.now()
    actor = known.remembered(caller, epoch=epoch, now=now)
    if actor is None:
        # A transaction of its own, ended before the body is read: a slow body must hold no connection of the pool.
        actor = await within(LONGEST_S, known.authenticate(caller, epoch=epoch, now=now))
    request[ACTOR] = actor
    _check_allowed(request, contract)
    return await handler(request)


def _check_allowed(request: web.Request, contract: Route) -> None:
    actor = request[ACTOR]
    if actor.scopes is not None:
        _check_scope(actor.scopes, contract)
    if contract.auth == "admin" and not has_right(actor.role, Right.ADMINISTER):
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


def _check_scope(scopes: frozenset[str], contract: Route) -> None:
    """A route that names no scope is for sessions only."""
    if contract.scope is None:
        raise Forbidden("No API token may do this; sign in.", code="insufficient_scope")
    if not grants(scopes, contract.scope):
        raise Forbidden(f"This token is not for this; it takes one with `{contract.scope}`.", code="insufficient_scope")
