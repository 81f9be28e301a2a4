"""Routes: one decorator that says all of an operation, from which both aiohttp's router and the OpenAPI
document are made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel

from scheduler import clock
from scheduler.accounts.sign_in import Client
from web.keys import (
    ACCESS_TOKENS,
    ACTOR,
    BODY,
    DATABASE,
    IDS,
    LINKS,
    PASSWORDS,
    QUERY,
    REMOTE,
    SESSION,
    SETTINGS,
)

Handler = Callable[..., Awaitable[web.StreamResponse]]
Auth = Literal["user", "admin"] | None

API_PREFIX = "/api/v1"
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
FORM = "application/x-www-form-urlencoded"

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """All that is known of one operation."""

    method: str
    path: str
    """The whole path, prefix included, with `{task_id}` for an id."""
    name: str
    """The handler's name: also the operationId."""
    tag: str
    summary: str
    description: str
    handler: Handler
    answers: Mapping[int, Any]
    """What each status of success answers: a type for the body, or None for none."""
    errors: tuple[str, ...]
    """Codes of errors beyond the general ones."""
    auth: Auth
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    ids: tuple[str, ...] = ()
    media_types: tuple[str, ...] = (JSON,)
    success_headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of a success, each with its description."""
    answer_media_type: str = JSON
    opens_session: bool = True
    uses_database: bool = False
    """Whether it opens transactions of its own."""
    writes: bool = False
    documented: bool = True
    open_to_unverified: bool = False
    """Whether a person whose e-mail is not verified may do it where verification is required."""


class RouteTable:
    """The routes of one noun. An instance is the decorator: `@route("POST", "/tasks", …)`."""

    def __init__(self, tag: str, description: str = "", *, prefix: str = API_PREFIX) -> None:
        self.tag = tag
        self.description = description
        self.prefix = prefix
        self.routes: list[Route] = []

    def __call__(
        self,
        method: str,
        path: str,
        *,
        summary: str,
        answers: Mapping[int, Any],
        errors: tuple[str, ...] = (),
        auth: Auth = "user",
        media_types: tuple[str, ...] = (JSON,),
        success_headers: Mapping[str, str] | None = None,
        answer_media_type: str = JSON,
        documented: bool = True,
        open_to_unverified: bool = False,
        writes: bool | None = None,
    ) -> Callable[[Handler], Handler]:
        """Register the handler for `method path`.

        The handler names what it needs and gets it: `request`, `session` (one request is one transaction:
        read for GET,
        write for the rest), `actor`, `body` and `query` (validated models, by their annotations), each id in
        the path, and
        `now`, `client`, `settings`, `database`, `passwords`, `access_tokens`. What hashes passwords takes
        `database` and no
        `session`: a hash is too slow to hold a transaction open.
        """

        def register(handler: Handler) -> Handler:
            names = tuple(inspect.signature(handler).parameters)
            hints = get_type_hints(handler)
            ids = tuple(_PARAMETER.findall(path))
            known = {*_SOURCES, *ids}
            if not known.issuperset(names):
                raise TypeError(f"{handler.__name__} asks for {sorted(set(names) - known)}, which no request has")
            if auth is None and "actor" in names:
                raise TypeError(f"{handler.__name__} asks for an actor, but nobody need be signed in")
            self.routes.append(
                Route(
                    method=method,
                    path=self.prefix + path,
                    name=handler.__name__,
                    tag=self.tag,
                    summary=summary,
                    description=inspect.getdoc(handler) or "",
                    handler=handler,
                    answers=answers,
                    errors=errors,
                    auth=auth,
                    body=hints.get("body"),
                    query=hints.get("query"),
                    ids=ids,
                    media_types=media_types,
                    success_headers=success_headers or {},
                    answer_media_type=answer_media_type,
                    opens_session="session" in names,
                    uses_database="database" in names,
                    writes=method not in ("GET", "HEAD") if writes is None else writes,
                    documented=documented,
                    open_to_unverified=open_to_unverified,
                )
            )
            return handler

        return register


_SOURCES: dict[str, Callable[[web.Request], Any]] = {
    "request": lambda request: request,
    "session": lambda request: request[SESSION],
    "actor": lambda request: request[ACTOR],
    "body": lambda request: request[BODY],
    "query": lambda request: request[QUERY],
    "now": lambda request: clock.now(),
    "client": lambda request: Client(ip=request[REMOTE].address or "", user_agent=_one_line(request)),
    "settings": lambda request: request.app[SETTINGS],
    "database": lambda request: request.app[DATABASE],
    "passwords": lambda request: request.app[PASSWORDS],
    "links": lambda request: request.app[LINKS],
    "access_tokens": lambda request: request.app[ACCESS_TOKENS],
}


def _one_line(request: web.Request) -> str:
    """The caller's User-Agent, as text that any database takes: bytes that are not UTF-8 become U+FFFD."""
    given = request.headers.get("User-Agent", "").encode(errors="surrogateescape").decode(errors="replace")
    return "".join(character if character.isprintable() else " " for character in given)


def _id_source(name: str) -> Callable[[web.Request], UUID]:
    return lambda request: request[IDS][name]


def endpoint(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What aiohttp calls for `route`. The middlewares have authenticated, validated and opened the
    transaction before."""
    handler = route.handler
    sources = tuple((name, _SOURCES.get(name) or _id_source(name)) for name in inspect.signature(handler).parameters)

    async def call(request: web.Request) -> web.StreamResponse:
        return await handler(**{name: source(request) for name, source in sources})

    call.__name__ = route.name
    call.contract = route  # type: ignore[attr-defined]
    return call


def contract_of(request: web.Request) -> Route | None:
    """The route that was matched, or None where there is none (404, 405) or it is not one of ours (static
    files)."""
    return getattr(request.match_info.handler, "contract", None)


def add_routes(app: web.Application, routes: list[Route]) -> None:
    """Put the routes into aiohttp's router; what answers GET answers HEAD too."""
    for route in routes:
        call = endpoint(route)
        if route.method == "GET":
            app.router.add_get(route.path, call, allow_head=True)
        else:
            app.router.add_route(route.method, route.path, call)
