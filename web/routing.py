"""Routes: one decorator that says all of an operation, from which both aiohttp's router and the OpenAPI
document are made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel

from scheduler import clock
from scheduler.accounts.client import Client
from scheduler.accounts.scopes import Scope
from web.keys import (
    ACCESS_TOKENS,
    ACTOR,
    BODY,
    DATABASE,
    ENCRYPTION,
    IDS,
    LINKS,
    PASSWORDS,
    PICTURES,
    QUERY,
    REDIS,
    REMOTE,
    REQUEST_ID,
    SESSION,
    SETTINGS,
    STORAGE,
    UPLOAD,
)

Handler = Callable[..., Awaitable[web.StreamResponse]]
Auth = Literal["user", "admin"] | None

API_PREFIX = "/api/v1"
AUTH_PREFIX = "/auth/"
"""Behind API_PREFIX: signing in and out, which no answer is kept of."""
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

IDEMPOTENCY_KEY_PATTERN = "^[!-~](?:[ -~]{0,253}[!-~])?$"
"""1 to 255 printable characters of ASCII; HTTP drops spaces around a header's value."""

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakesFile:
    """That the body of an operation is a file, in one part of `multipart/form-data`."""

    name: str = "file"
    maximum: int
    """Bytes; larger ones are a 413."""
    description: str


@dataclass(frozen=True, slots=True)
class Bytes:
    """An answer that is not JSON, in `Route.answers`."""

    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Instead of the route's `success_headers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """All that is known of one operation."""

    method: str
    path: str
    """The whole path, prefix included, with `{task_id}` for an id, or `{name}` for a name that the handler takes as
    text."""
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
    body_required: bool = True
    """Whether there must be one; without, the handler gets None."""
    takes_file: TakesFile | None = None
    """There: the handler asks for `upload`, and no `body`."""
    query: type[BaseModel] | None = None
    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Parts of the path that are text, taken as they are."""
    takes_idempotency_key: bool = False
    media_types: tuple[str, ...] = (JSON,)
    success_headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of a success, each with its description."""
    answer_media_type: str = JSON
    opens_session: bool = True
    uses_database: bool = False
    """Whether it opens transactions of its own."""
    hashes: bool = False
    """Whether it hashes passwords: only so many of these are worked on at once."""
    writes: bool = False
    documented: bool = True
    open_to_unverified: bool = False
    """Whether a person whose e-mail is not verified may do it where verification is required."""
    scope: Scope | None = None
    """What a personal API token must be for (contract, section 3); None: it takes a session, and no token will do."""
    password: bool = False
    """Whether passwords or codes can be guessed here: counted by the caller's address, all such routes together."""


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
        scope: Scope | None = None,
        password: bool = False,
        takes_file: TakesFile | None = None,
    ) -> Callable[[Handler], Handler]:
        """Register the handler for `method path`.

        The handler names what it needs and gets it: `request`, `session` (one request is one transaction:
        read for GET, write for the rest), `actor`, `body` and `query` (validated models, by their annotations; a body
        that may be left out is a `Model | None`), each id in the path (a part annotated as `str` is a name, and any
        text), and `now`, `client`, `settings`, `database`, `redis`, `passwords`, `encryption`, `access_tokens`,
        `request_id`. What hashes passwords takes `database` and no
        `session`: a hash is too slow to hold a transaction open.
        """

        def register(handler: Handler) -> Handler:
            names = tuple(inspect.signature(handler).parameters)
            hints = get_type_hints(handler)
            parameters = _PARAMETER.findall(path)
            body, body_required = _body_of(hints.get("body"))
            known = {*_SOURCES, *parameters}
            if not known.issuperset(names):
                raise TypeError(f"{handler.__name__} asks for {sorted(set(names) - known)}, which no request has")
            if auth is None and "actor" in names:
                raise TypeError(f"{handler.__name__} asks for an actor, but nobody need be signed in")
            if (takes_file is not None) != ("upload" in names):
                raise TypeError(f"{handler.__name__} asks for an upload, and its route takes no file; or the reverse")
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
                    body=body,
                    body_required=body_required,
                    takes_file=takes_file,
                    query=hints.get("query"),
                    ids=tuple(each for each in parameters if hints.get(each) is not str),
                    names=tuple(each for each in parameters if hints.get(each) is str),
                    takes_idempotency_key=method == "POST" and auth is not None and not path.startswith(AUTH_PREFIX),
                    media_types=media_types,
                    success_headers=success_headers or {},
                    answer_media_type=answer_media_type,
                    opens_session="session" in names,
                    uses_database="database" in names,
                    hashes="passwords" in names,
                    writes=method not in ("GET", "HEAD") if writes is None else writes,
                    documented=documented,
                    open_to_unverified=open_to_unverified,
                    scope=scope,
                    password=password,
                )
            )
            return handler

        return register


_SOURCES: dict[str, Callable[[web.Request], Any]] = {
    "request": lambda request: request,
    "session": lambda request: request[SESSION],
    "actor": lambda request: request[ACTOR],
    "body": lambda request: request.get(BODY),
    "query": lambda request: request[QUERY],
    "now": lambda request: clock.now(),
    "client": lambda request: Client(ip=request[REMOTE].address or "", user_agent=_one_line(request)),
    "settings": lambda request: request.app[SETTINGS],
    "database": lambda request: request.app[DATABASE],
    "redis": lambda request: request.app[REDIS],
    "passwords": lambda request: request.app[PASSWORDS],
    "encryption": lambda request: request.app[ENCRYPTION],
    "upload": lambda request: request[UPLOAD],
    "pictures": lambda request: request.app[PICTURES],
    "storage": lambda request: request.app[STORAGE],
    "links": lambda request: request.app[LINKS],
    "access_tokens": lambda request: request.app[ACCESS_TOKENS],
    "request_id": lambda request: request[REQUEST_ID],
}


def _body_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model of a body, and whether there must be one."""
    choices = get_args(annotation)
    if type(None) in choices:
        (model,) = (choice for choice in choices if choice is not type(None))
        return model, False
    return annotation, True


def _one_line(request: web.Request) -> str:
    """The caller's User-Agent, as text that any database takes: bytes that are not UTF-8 become U+FFFD."""
    given = request.headers.get("User-Agent", "").encode(errors="surrogateescape").decode(errors="replace")
    return "".join(character if character.isprintable() else " " for character in given)


def _part_of_path(name: str, route: Route) -> Callable[[web.Request], UUID | str]:
    if name in route.names:
        return lambda request: request.match_info[name]
    return lambda request: request[IDS][name]


def endpoint(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What aiohttp calls for `route`. The middlewares have authenticated, validated and opened the
    transaction before."""
    handler = route.handler
    names = inspect.signature(handler).parameters
    sources = tuple((name, _SOURCES.get(name) or _part_of_path(name, route)) for name in names)

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
