"""Reading a request: its ids, its query and its body, into validated models or a problem."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError
from pydantic import BaseModel, ValidationError

from scheduler.errors import FieldError, Invalid, NotFound
from scheduler.identifiers import parse_id
from web.keys import RAW_BODY
from web.problems import HTTPProblem
from web.routing import FORM, IDEMPOTENCY_KEY_PATTERN, Route
from web.schemas.fields import sentence, without_union_tags

MAXIMUM_BODY = 1024 * 1024
"""Bytes; larger bodies are a 413 (contract, section 1)."""
BODY_TIMEOUT_S = 30
"""A body that takes longer to arrive is given up on, so that slow clients can't hold connections and
memory."""

IDEMPOTENCY_KEY_FORM = re.compile(IDEMPOTENCY_KEY_PATTERN)

# Codes of field errors, from pydantic's names for them; the rest keep pydantic's name.
_CODES = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    "string_type": "wrong_type",
    "int_type": "wrong_type",
    "bool_type": "wrong_type",
    "list_type": "wrong_type",
    "model_type": "wrong_type",
    "model_attributes_type": "wrong_type",
    "dict_type": "wrong_type",
    "literal_error": "not_a_choice",
    "string_too_short": "too_short",
    "string_too_long": "too_long",
    "greater_than_equal": "too_small",
    "less_than_equal": "too_large",
}
_MESSAGES = {
    "missing": "Is required",
    "extra_forbidden": "There is no field of this name here",
    "model_type": "Must be an object",
    "dict_type": "Must be an object",
}


def read_ids(request: web.Request, route: Route) -> dict[str, UUID]:
    """The ids in the path. A malformed one raises the same NotFound as an unknown one."""
    ids = {}
    for name in route.ids:
        value = parse_id(request.match_info[name])
        if value is None:
            raise NotFound()
        ids[name] = value
    return ids


def read_idempotency_key(request: web.BaseRequest, route: Route) -> str | None:
    """The caller's `Idempotency-Key`, where the route takes one. Raises HTTPProblem for one that is none."""
    given = request.headers.getall("Idempotency-Key", []) if route.takes_idempotency_key else []
    if not given:
        return None
    if len(given) > 1 or not IDEMPOTENCY_KEY_FORM.fullmatch(given[0]):
        raise HTTPProblem("bad_request", "`Idempotency-Key` takes 1 to 255 characters of ASCII, once.")
    return given[0]


def read_query(request: web.BaseRequest, model: type[BaseModel] | None) -> BaseModel | None:
    """The query's parameters. A parameter that nobody declared, or a single one given twice, raises
    Invalid."""
    given = request.query
    if model is None:
        if given:
            raise Invalid(
                *(FieldError(f"?{name}", "There is no parameter of this name here", "unknown_field") for name in given)
            )
        return None
    values: dict[str, Any] = {}
    faults = []
    for name in dict.fromkeys(given):
        repeated = given.getall(name)
        if name in model.model_fields and _takes_many(model, name):
            values[name] = repeated
        elif len(repeated) > 1:
            faults.append(FieldError(f"?{name}", "Give it once", "repeated"))
        else:
            values[name] = repeated[0]
    if faults:
        raise Invalid(*faults)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Invalid(
            *(_field_error(fault, "?" + _name(fault["loc"])) for fault in error.errors(include_url=False))
        ) from None


def _name(location: Sequence[str | int]) -> str:
    return str(location[0]) if location else ""


def _takes_many(model: type[BaseModel], name: str) -> bool:
    extra = model.model_fields[name].json_schema_extra
    return isinstance(extra, Mapping) and extra.get("x-repeat") is True


async def read_body(request: web.Request, route: Route) -> BaseModel | None:
    """The validated body, or None for a route without one (whatever is sent to it then is not looked at), and where
    one that may be left out is.

    Raises HTTPProblem 400, 408, 413, 415, and Invalid with a JSON Pointer to each fault.
    """
    if route.body is None:
        return None
    if not route.body_required and not _has_body(request):
        return None
    media_type = _media_type(request, route)
    raw = await read_raw_body(request)
    if not raw.strip():
        if not route.body_required:
            return None
        raise HTTPProblem("malformed_body", "The body is empty; send a JSON object.")
    value = _read_form(raw) if media_type == FORM else _read_json(raw)
    if not isinstance(value, dict):
        raise Invalid(FieldError("", "Must be a JSON object", "wrong_type"))
    return validate(route.body, value)


def validate(model: type[BaseModel], value: object) -> BaseModel:
    """`value` as a `model`; raises Invalid with a JSON Pointer to each fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Invalid(
            *(_field_error(fault, _pointer(fault["loc"])) for fault in error.errors(include_url=False))
        ) from None


def _media_type(request: web.Request, route: Route) -> str:
    header = request.headers.get("Content-Type")
    if header is None:
        if not _has_body(request):
            raise HTTPProblem("malformed_body", "The body is empty; send a JSON object.")
        raise HTTPProblem("unsupported_media_type", f"Say what the body is: `Content-Type: {route.media_types[0]}`.")
    media_type = request.content_type.lower()
    charset = (request.charset or "utf-8").lower()
    if media_type not in route.media_types or charset not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPProblem("unsupported_media_type", f"Send {' or '.join(route.media_types)}, in UTF-8.")
    return media_type


def _has_body(request: web.Request) -> bool:
    # Of one that was read before (for its idempotency key) nothing is left to read.
    return bool(request[RAW_BODY]) if RAW_BODY in request else request.can_read_body


async def read_raw_body(request: web.Request) -> bytes:
    """The body as it came; any number of times. Raises HTTPProblem 400, 408, 413."""
    if RAW_BODY not in request:
        request[RAW_BODY] = await _read(request)
    return request[RAW_BODY]


async def _read(request: web.Request) -> bytes:
    try:
        if request.content_length is not None and request.content_length > MAXIMUM_BODY:
            raise HTTPProblem("too_large", f"The body is larger than {MAXIMUM_BODY} bytes; send less.")
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise HTTPProblem(
            "request_timeout", "The body did not arrive in time; send it again.", {"Connection": "close"}
        ) from None
    except web.HTTPRequestEntityTooLarge:
        raise HTTPProblem("too_large", f"The body is larger than {MAXIMUM_BODY} bytes; send less.") from None
    except (RequestPayloadError, ValueError):
        raise HTTPProblem("malformed_body", "The body can't be read as HTTP; check how it is sent.") from None


def _read_json(raw: bytes) -> object:
    """JSON as RFC 8259 has it: UTF-8, no NaN, no lone surrogates, not nested beyond 1024; of equal keys the
    last wins."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise HTTPProblem("malformed_body", f"The body is not JSON in UTF-8: {error}.") from None


def _read_form(raw: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=100
        )
    except ValueError:
        raise HTTPProblem("malformed_body", "The body is not a form in UTF-8.") from None
    return dict(pairs)


def _pointer(location: Sequence[str | int]) -> str:
    """RFC 6901."""
    parts = (str(part) for part in without_union_tags(location))
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _field_error(fault: Mapping[str, Any], field: str) -> FieldError:
    kind = fault["type"]
    message = _MESSAGES.get(kind) or sentence(fault["msg"].removeprefix("Value error, ").removeprefix("Input "))
    return FieldError(field, message, _CODES.get(kind, kind))
