"""How often somebody may ask (contract, section 1): a person by who they are, and whoever tries passwords by their
address.

The caller's token is looked at here already, as it says in which person's bucket the request is counted; the trip to
Redis that counts it brings back by what `authentication` judges it.
"""

from __future__ import annotations

from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Handler

from scheduler import clock
from scheduler.accounts.authentication import Caller
from scheduler.errors import TooMany, Unauthenticated
from scheduler.rate_limits.rule import Limit
from web.authorization import bearer_token
from web.keys import AUTHENTICATION, CALLER, LIMITS, RATE_LIMITS, REMOTE, TAKEN
from web.patience import LONGEST_S, within
from web.routing import contract_of

IPV6_NETWORK = 64
"""Bits. Whoever has one address of such a network has all of them (RFC 6177, 2)."""


@web.middleware
async def rate_limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, and raise TooMany when it is one too many. Raises Unauthenticated for a token that is
    none, once the try is counted."""
    contract = contract_of(request)
    if contract is None or not (contract.auth or contract.password):
        return await handler(request)
    app = request.app
    caller: Caller | None = None
    refusal: Unauthenticated | None = None
    if contract.auth is not None:
        try:
            token, now, authentication = bearer_token(request), clock.now(), app[AUTHENTICATION]
            caller = authentication.recognised(token, now=now)
            if caller is None:
                caller = await within(LONGEST_S, authentication.recognise(token, now=now))
        except Unauthenticated as error:
            refusal = error
    buckets: list[tuple[str, Limit]] = []
    if contract.password and (limit := app[LIMITS].password) is not None:
        buckets.append((f"address:{bucket_of(request[REMOTE].address)}", limit))
    if caller is not None and (limit := app[LIMITS].user) is not None:
        buckets.append((f"user:{caller.user_id.hex}", limit))
    taken = request[TAKEN] = await app[RATE_LIMITS].take(buckets, epoch_of=caller.user_id if caller else None)
    if taken.standing is not None and not taken.standing.allowed:
        raise TooMany(retry_after_s=taken.standing.reset_s)
    if refusal is not None:
        raise refusal
    if caller is not None:
        request[CALLER] = caller
    return await handler(request)


async def add_rate_limit_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal, not a middleware: answers that are streamed, and those of errors, have them too."""
    taken = request.get(TAKEN)
    if taken is None or taken.standing is None:
        return
    response.headers["RateLimit-Limit"] = str(taken.standing.limit)
    response.headers["RateLimit-Remaining"] = str(taken.standing.remaining)
    response.headers["RateLimit-Reset"] = str(taken.standing.reset_s)


def bucket_of(address: str | None) -> str:
    """Whose bucket a caller at this address shares: an IPv4 address has its own, an IPv6 one that of its network."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return "local"  # a unix socket, with no proxy before it that says who calls
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{parsed.packed[: IPV6_NETWORK // 8].hex()}/{IPV6_NETWORK}"
