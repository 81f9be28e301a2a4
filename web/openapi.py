"""The OpenAPI 3.1 document, made from the registered routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from web.problems import KINDS, MEDIA_TYPE
from web.routing import API_PREFIX, IDEMPOTENCY_KEY_PATTERN, Route, RouteTable
from web.schemas.problems import Problem

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

_REFERENCE = "#/components/schemas/{model}"

DESCRIPTION = f"""\
Tasks and reminders: **every reminder goes out once, on time, whatever dies.**

**Signing in.** `POST {API_PREFIX}/auth/signup` or `/auth/login` gives an access token, good for 15 minutes,
to be sent as
`Authorization: Bearer …`, and a refresh token for `/auth/refresh-token`.

**Caching and lost updates.** A single resource has a strong `ETag`. `If-None-Match` with it gives 304;
`If-Match` on PATCH, PUT
and DELETE gives 412 and changes nothing when the resource was changed meanwhile. Without `If-Match` the last
write wins.

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
                    "description": "The `access_token` of a sign-in",
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
            if answer is not None:
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
    operation["responses"] = {
        **{str(status): _success(route, status, kind, references) for status, kind in route.answers.items()},
        **(_not_modified(route) if route.method == "GET" and "ETag" in route.success_headers else {}),
        **_problems(route, references),
    }
    operation["security"] = [{"bearer": []}] if route.auth else []
    return operation


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
    "description": "The same key again gives what the first request with it made, and makes nothing more",
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
    headers: Schema = {"X-Request-ID": _header("The request's id", required=True)}
    for name, description in route.success_headers.items():
        headers[name] = _header(description, required=name in ("ETag", "Location"))
    response: Schema = {"description": HTTPStatus(status).phrase, "headers": headers}
    if kind is not None:
        response["content"] = {route.answer_media_type: {"schema": references[kind, "serialization"]}}
    return response


def _not_modified(route: Route) -> Schema:
    headers = {
        "X-Request-ID": _header("The request's id", required=True),
        "ETag": _header(route.success_headers["ETag"], required=True),
    }
    return {"304": {"description": "Not Modified: `If-None-Match` holds the present ETag", "headers": headers}}


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
            "headers": _problem_headers(status),
            "content": {MEDIA_TYPE: {"schema": references[Problem, "serialization"]}},
        }
        for status, found in sorted(codes.items())
    }


def _general_codes(route: Route) -> list[str]:
    # Any request may be unreadable as HTTP, or carry a query that the route does not take.
    codes = ["bad_request", "validation_failed"]
    if route.auth is not None:
        codes += ["unauthenticated", "token_expired", "token_revoked", "deactivated"]
        if route.auth == "admin":
            codes.append("forbidden")
        if route.writes and not route.open_to_unverified:
            codes.append("email_unverified")
    if route.ids or route.names:
        codes.append("not_found")
    if route.query is not None and "cursor" in route.query.model_fields:
        codes.append("bad_cursor")
    if route.body is not None:
        codes += ["malformed_body", "request_timeout", "too_large", "unsupported_media_type"]
    if "ETag" in route.success_headers or route.method == "DELETE":
        codes += ["precondition_failed"] if route.method in ("PATCH", "PUT", "DELETE") else []
    if route.path.startswith(API_PREFIX):
        codes.append("unavailable")
    return codes


def _problem_headers(status: int) -> Schema:
    headers: Schema = {"X-Request-ID": _header("The request's id", required=True)}
    if status == 401:
        headers["WWW-Authenticate"] = _header("`Bearer`", required=True)
    if status == 503:
        headers["Retry-After"] = {"description": "Seconds", "required": True, "schema": {"type": "integer"}}
    return headers
