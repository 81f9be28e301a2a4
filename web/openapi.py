"""The OpenAPI 3.1 document, made from the registered routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from web.problems import KINDS, MEDIA_TYPE
from web.routing import API_PREFIX, IDEMPOTENCY_KEY_PATTERN, MULTIPART, Bytes, Route, RouteTable, TakesFile
from web.schemas.problems import Problem

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

_REFERENCE = "#/components/schemas/{model}"

DESCRIPTION = f"""\
Tasks and reminders: **every reminder goes out once, on time, whatever dies.**

**Signing in.** `POST {API_PREFIX}/auth/signup` or `/auth/login` gives an access token, good for 15 minutes,
to be sent as
`Authorization: Bearer …`, and a refresh token for `/auth/refresh-token`, which changes with each use: the second use of
one ends its session. A session ends 30 days after its last use; a person may have any number of them.

**API tokens** for programs are made at `{API_PREFIX}/auth/tokens` and sent as `Authorization: Bearer …` too. The scope
that one must have stands beside each operation, under `security`; where there is none, the operation takes a session.
`tasks:write` is for what `tasks:read` is for as well.

**Caching and lost updates.** A single resource has a strong `ETag`. `If-None-Match` with it gives 304;
`If-Match` on PATCH, PUT
and DELETE gives 412 and changes nothing when the resource was changed meanwhile. Without `If-Match` the last
write wins.

**Retries.** Every POST of a signed-in caller outside `{API_PREFIX}/auth` takes an `Idempotency-Key` of your own, 1 to
255 characters, kept for 24 hours: the same key and the same body give the first answer again, byte for byte, with
`Idempotent-Replayed: true`, and do nothing more.

**Rate limits.** `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds) stand on every answer that
counts; past them it is a 429 with `Retry-After`. By default a person has 600 a minute, and an address 10 a minute where
passwords and codes can be tried. Ten failed sign-ins within 15 minutes lock an account's password for 15 minutes, and
what is answered says nothing of it; resetting the password unlocks it.

**Lists** come in pages: `limit`, then `cursor` with the `next_cursor` of the page before. `Link: <…>;
rel="next"` says the same.

**Errors** are `{MEDIA_TYPE}` (RFC 9457) with a `code` that does not change. Every answer has an
`X-Request-ID`, which is the
one that you sent, when it is 1 to 128 of `[A-Za-z0-9._-]`.

**Instants** are RFC 3339 and always carry an offset; answers are in UTC. Ids are opaque.
"""


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without a title for each field: it would only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def make_document(tables: Sequence[RouteTable]) -> Schema:
    """The document for these tables' routes (those that are documented). Equal routes give equal
    documents."""
    routes = [route for table in tables for route in table.routes if route.documented]
    references, components = _schemas(routes)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Punctual",
            "version": _version(),
            "summary": "A self-hosted task and reminder service",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This server"}],
        "tags": [{"name": table.tag, "description": table.description} for table in _first_of_each(tables)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `access_token` of a sign-in; or an API token, of the scope that is named",
                }
            },
        },
    }


def _version() -> str:
    try:
        return version("punctual")
    except PackageNotFoundError:
        return "0"


def _first_of_each(tables: Iterable[RouteTable]) -> list[RouteTable]:
    return list(
        {table.tag: table for table in reversed(list(tables)) if any(r.documented for r in table.routes)}.values()
    )[::-1]


def _schemas(routes: Sequence[Route]) -> tuple[dict[tuple[Any, Mode], Schema], dict[str, Schema]]:
    """A reference for each type that routes take or answer, and the components behind them."""
    wanted: dict[tuple[Any, Mode], TypeAdapter[Any]] = {(Problem, "serialization"): TypeAdapter(Problem)}
    for route in routes:
        if route.body is not None:
            wanted[route.body, "validation"] = TypeAdapter(route.body)
        for answer in route.answers.values():
            if answer is not None and not isinstance(answer, Bytes):
                wanted[answer, "serialization"] = TypeAdapter(answer)
    inputs = [(kind, mode, adapter) for (kind, mode), adapter in wanted.items()]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE, schema_generator=_Generator)
    return dict(found), {name: _cleaned(schema) for name, schema in definitions.get("$defs", {}).items()}


def _cleaned(schema: Schema) -> Schema:
    """Component titles repeat the component's name."""
    return {key: value for key, value in schema.items() if key != "title"}


def _operation(route: Route, references: dict[tuple[Any, Mode], Schema]) -> Schema:
    operation: Schema = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "description": " ".join(route.description.split()),
    }
    parameters = [_id_parameter(name) for name in route.ids] + [_name_parameter(name) for name in route.names]
    if route.query is not None:
        parameters += _query_parameters(route.query)
    if route.takes_idempotency_key:
        parameters.append(IDEMPOTENCY_KEY)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        schema = references[route.body, "validation"]
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {media_type: {"schema": schema} for media_type in route.media_types},
        }
    if route.takes_file is not None:
        operation["requestBody"] = _file_body(route.takes_file)
    operation["responses"] = {
        **{str(status): _success(route, status, kind, references) for status, kind in route.answers.items()},
        **_not_modified(route),
        **_problems(route, references),
    }
    # The names are of roles where the scheme is no OAuth (OpenAPI 3.1, Security Requirement Object); to us: of scopes.
    operation["security"] = [{"bearer": [route.scope] if route.scope else []}] if route.auth else []
    return operation


def _file_body(takes: TakesFile) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {takes.name: {"type": "string", "format": "binary", "description": takes.description}},
        "required": [takes.name],
        "additionalProperties": False,
    }
    return {"required": True, "content": {MULTIPART: {"schema": schema}}}


def _id_parameter(name: str) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "Opaque; one that is malformed is as unknown as any other",
        "schema": {"type": "string", "format": "uuid"},
    }


def _name_parameter(name: str) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "One that is unknown is a 404",
        "schema": {"type": "string", "minLength": 1},
    }


IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same body gives the first answer again, for 24 hours, and does nothing more",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": IDEMPOTENCY_KEY_PATTERN},
}


def _query_parameters(model: type[BaseModel]) -> list[Schema]:
    schema = model.model_json_schema(mode="validation", ref_template=_REFERENCE, schema_generator=_Generator)
    required = schema.get("required", [])
    parameters = []
    for name, declared in schema["properties"].items():
        own = {key: value for key, value in declared.items() if key not in ("x-repeat", "description")}
        # A parameter can be left out, but there is no null in a query.
        choices = [choice for choice in own.pop("anyOf", []) if choice != {"type": "null"}]
        if choices:
            own = {**choices[0], **own} if len(choices) == 1 else {"anyOf": choices, **own}
        if own.get("default", ...) is None:
            del own["default"]
        description = own.pop("description", None) or declared.get("description")
        parameter: Schema = {"name": name, "in": "query", "required": name in required, "schema": own}
        if description:
            parameter["description"] = description
        if own.get("type") == "array":
            parameter |= {"style": "form", "explode": True}
        parameters.append(parameter)
    return parameters


def _success(route: Route, status: int, kind: Any, references: dict[tuple[Any, Mode], Schema]) -> Schema:
    headers = _common_headers(route)
    given = kind.headers if isinstance(kind, Bytes) else route.success_headers
    for name, description in given.items():
        headers[name] = _header(description, required=name in ("ETag", "Location"))
    response: Schema = {"description": HTTPStatus(status).phrase, "headers": headers}
    if isinstance(kind, Bytes):
        response["content"] = {kind.media_type: {"schema": {"type": "string", "format": "binary"}}}
    elif kind is not None:
        response["content"] = {route.answer_media_type: {"schema": references[kind, "serialization"]}}
    return response


def _not_modified(route: Route) -> Schema:
    given = (kind.headers if isinstance(kind, Bytes) else route.success_headers for kind in route.answers.values())
    described = next((headers["ETag"] for headers in given if "ETag" in headers), None)
    if route.method != "GET" or described is None:
        return {}
    headers = {**_common_headers(route), "ETag": _header(described, required=True)}
    return {"304": {"description": "Not Modified: `If-None-Match` holds the present ETag", "headers": headers}}


def _common_headers(route: Route) -> Schema:
    """Of every answer of this operation. Limits may be switched off, so none of theirs is always there."""
    headers: Schema = {"X-Request-ID": _header("The request's id", required=True)}
    if route.auth is not None or route.password:
        for name, description in _RATE_LIMIT_HEADERS.items():
            headers[name] = {"description": description, "required": False, "schema": {"type": "integer", "minimum": 0}}
    if route.takes_idempotency_key:
        headers["Idempotent-Replayed"] = {
            "description": "The answer was given before, to a request with the same `Idempotency-Key`",
            "required": False,
            "schema": {"const": "true"},
        }
    return headers


_RATE_LIMIT_HEADERS = {
    "RateLimit-Limit": "Requests that may come at once",
    "RateLimit-Remaining": "Requests that are left just now",
    "RateLimit-Reset": "Seconds until all of them are left again; past the limit, until one is",
}


def _header(description: str, *, required: bool = False) -> Schema:
    return {"description": description, "required": required, "schema": {"type": "string"}}


def _problems(route: Route, references: dict[tuple[Any, Mode], Schema]) -> Schema:
    """The general errors that this operation can give, and its own, by status."""
    codes: dict[int, list[str]] = {}
    for code in (*_general_codes(route), *route.errors):
        status = KINDS[code].status
        if code not in codes.setdefault(status, []):
            codes[status].append(code)
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}: " + ", ".join(f"`{code}`" for code in found),
            "headers": _problem_headers(route, status),
            "content": {MEDIA_TYPE: {"schema": references[Problem, "serialization"]}},
        }
        for status, found in sorted(codes.items())
    }


def _general_codes(route: Route) -> list[str]:
    # Any request may be unreadable as HTTP, or carry a query that the route does not take.
    codes = ["bad_request", "validation_failed"]
    if route.auth is not None:
        codes += ["unauthenticated", "token_expired", "token_revoked", "deactivated", "insufficient_scope"]
        if route.auth == "admin":
            codes.append("forbidden")
        if route.writes and not route.open_to_unverified:
            codes.append("email_unverified")
    if route.auth is not None or route.password:
        codes.append("rate_limited")
    if route.takes_idempotency_key:
        codes += ["idempotency_key_reused", "idempotency_in_progress", "conflict"]
    if route.ids or route.names:
        codes.append("not_found")
    if route.query is not None and "cursor" in route.query.model_fields:
        codes.append("bad_cursor")
    if route.body is not None or route.takes_file is not None:
        codes += ["malformed_body", "request_timeout", "too_large", "unsupported_media_type"]
    if "ETag" in route.success_headers or route.method == "DELETE":
        codes += ["precondition_failed"] if route.method in ("PATCH", "PUT", "DELETE") else []
    if route.path.startswith(API_PREFIX):
        codes.append("unavailable")
    return codes


def _problem_headers(route: Route, status: int) -> Schema:
    headers = _common_headers(route)
    if status == 401:
        headers["WWW-Authenticate"] = _header("`Bearer`", required=True)
    if status in (429, 503):
        headers["Retry-After"] = {"description": "Seconds", "required": True, "schema": {"type": "integer"}}
    return headers
