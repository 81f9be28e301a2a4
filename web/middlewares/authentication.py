"""Who is asking, and whether the route is open to them, before anything else of the request is looked at."""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.typedefs import Handler

from scheduler import clock
from scheduler.access import Right, has_right
from scheduler.accounts.scopes import grants
from scheduler.errors import Forbidden
from web.keys import ACTOR, AUTHENTICATION, CALLER, JUDGED_AT, RATE_LIMITS, SETTINGS, TAKEN
from web.patience import LONGEST_S, within
from web.routing import Route, contract_of

AGAIN_AFTER_S = 0.5
"""What was judged longer ago is judged again before it counts."""


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raise Unauthenticated or Forbidden where the route asks for more than the caller has."""
    contract = contract_of(request)
    if contract is None or contract.auth is None:
        return await handler(request)
    await _judge(request, contract, request[TAKEN].epoch)
    return await handler(request)


async def judge_again(request: web.Request) -> None:
    """Once more, for who has taken their time with the body, or has waited for their turn: they may have been signed
    out meanwhile, or be no administrator any longer. Raises as `authentication` does."""
    contract = contract_of(request)
    if contract is None or contract.auth is None or time.monotonic() - request[JUDGED_AT] < AGAIN_AFTER_S:
        return
    taken = await request.app[RATE_LIMITS].take([], epoch_of=request[CALLER].user_id)
    await _judge(request, contract, taken.epoch)


async def _judge(request: web.Request, contract: Route, epoch: bytes | None) -> None:
    known, caller, now = request.app[AUTHENTICATION], request[CALLER], clock.now()
    request[JUDGED_AT] = time.monotonic()
    actor = known.remembered(caller, epoch=epoch, now=now)
    if actor is None:
        # A transaction of its own, ended before the body is read: a slow body must hold no connection of the pool.
        actor = await within(LONGEST_S, known.authenticate(caller, epoch=epoch, now=now))
    request[ACTOR] = actor
    _check_allowed(request, contract)


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
