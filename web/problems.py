"""Errors as RFC 9457 problem documents: one table from the domain's errors to HTTP, used for answers and for
the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

import orjson
from aiohttp import web

from scheduler import errors

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
MOST_ERRORS = 50
"""An answer names at most so many faults of a body: a megabyte of unknown fields is not worth several of
answer."""

STATUS_OF: dict[type[errors.PunctualError], int] = {
    errors.Invalid: 422,
    errors.InvalidToken: 422,
    errors.UnsupportedMediaType: 415,
    errors.NotFound: 404,
    errors.Forbidden: 403,
    errors.Unauthenticated: 401,
    errors.Conflict: 409,
    errors.TooMany: 429,
    errors.PreconditionFailed: 412,
    errors.BadCursor: 400,
    errors.Unavailable: 503,
}


class Kind(NamedTuple):
    """What a code means: its status and the title that never changes."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    "bad_request": Kind(400, "The request can't be read"),
    "malformed_body": Kind(400, "The body can't be read"),
    "bad_cursor": Kind(400, "Not a cursor of this list"),
    "unauthenticated": Kind(401, "Not signed in"),
    "token_expired": Kind(401, "The token has expired"),
    "token_revoked": Kind(401, "The token no longer works"),
    "bad_credentials": Kind(401, "Wrong e-mail or password"),
    "otp_required": Kind(401, "A one-time code is needed"),
    "bad_otp": Kind(401, "Wrong one-time code"),
    "forbidden": Kind(403, "Not allowed"),
    "email_unverified": Kind(403, "The e-mail address is not verified"),
    "deactivated": Kind(403, "The account is deactivated"),
    "insufficient_scope": Kind(403, "The token lacks a scope"),
    "bad_password": Kind(403, "Wrong password"),
    "signup_closed": Kind(403, "Signing up is closed"),
    "not_found": Kind(404, "Not found"),
    "method_not_allowed": Kind(405, "Method not allowed"),
    "request_timeout": Kind(408, "The request took too long"),
    "conflict": Kind(409, "Conflict with the present state"),
    "email_taken": Kind(409, "The e-mail address is taken"),
    "last_admin": Kind(409, "The last administrator"),
    "already_verified": Kind(409, "Already verified"),
    "no_sms_gateway": Kind(409, "No text messages are sent here"),
    "already_enabled": Kind(409, "On already"),
    "already_disabled": Kind(409, "Off already"),
    "not_started": Kind(409, "Not started yet"),
    "already_deleted": Kind(409, "In the bin already"),
    "already_restored": Kind(409, "Not in the bin"),
    "already_completed": Kind(409, "Completed already"),
    "already_finished": Kind(409, "Finished already"),
    "already_sending": Kind(409, "Being sent just now"),
    "already_sent": Kind(409, "Sent already"),
    "not_finished": Kind(409, "Not finished yet"),
    "too_many_tokens": Kind(409, "Too many tokens"),
    "idempotency_in_progress": Kind(409, "The first request with this idempotency key has not ended"),
    "unknown_job": Kind(409, "No worker knows this job any longer"),
    "precondition_failed": Kind(412, "Changed since it was read"),
    "too_large": Kind(413, "Too large"),
    "unsupported_media_type": Kind(415, "Not a media type that is taken here"),
    "range_not_satisfiable": Kind(416, "No such range"),
    "expectation_failed": Kind(417, "The expectation can't be met"),
    "validation_failed": Kind(422, "Not valid"),
    "idempotency_key_reused": Kind(422, "The idempotency key was used for another request"),
    "invalid_token": Kind(422, "The link or token does not work"),
    "rate_limited": Kind(429, "Too many requests"),
    "internal_error": Kind(500, "Something went wrong"),
    "unavailable": Kind(503, "Not available just now"),
}

# What aiohttp raises by itself, as ours. The rest falls back on the status's own phrase.
_CODE_OF_STATUS = {
    400: ("bad_request", "The request is not HTTP as it should be; check what sends it."),
    404: ("not_found", "There is nothing at this address; check its spelling, or see /docs."),
    405: ("method_not_allowed", "This address does not take that method; `Allow` names those it does."),
    408: ("request_timeout", "The request did not arrive in time; send it again."),
    413: ("too_large", "The body is larger than what is taken here; send less."),
    415: ("unsupported_media_type", "Send the body as a media type that is taken here."),
    417: ("expectation_failed", "Only `Expect: 100-continue` is understood; leave the header out."),
    500: (
        "internal_error",
        "Something went wrong on our side; try again, and tell the operator the request id if it stays.",
    ),
}


class HTTPProblem(Exception):
    """A fault of the HTTP request itself (not of what it asks for), found before any service is called."""

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


class Problem(NamedTuple):
    """A problem about to be sent."""

    status: int
    code: str
    title: str
    detail: str
    errors: tuple[errors.FieldError, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()

    def document(self, request_id: str) -> dict[str, object]:
        """The body as the contract has it; `errors` on 422 only."""
        document: dict[str, object] = {
            "type": f"urn:punctual:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.status == 422:
            document["errors"] = [error._asdict() for error in self.errors[:MOST_ERRORS]]
        return document

    def response(self, request_id: str) -> web.Response:
        """The answer, with the headers that its status asks for."""
        return web.Response(
            body=orjson.dumps(self.document(request_id)),
            status=self.status,
            content_type=MEDIA_TYPE,
            headers=self.headers,
        )


def of_domain(error: errors.PunctualError) -> Problem:
    """The problem for an error that a service raised."""
    status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)
    code = error.error_code
    found: Iterable[errors.FieldError] = error.errors if isinstance(error, errors.Invalid) else ()
    headers: tuple[tuple[str, str], ...] = ()
    if status == 401:
        headers = (("WWW-Authenticate", "Bearer"),)
    elif status == 503:
        headers = (("Retry-After", str(RETRY_AFTER_S)),)
    elif isinstance(error, errors.TooMany):
        headers = (("Retry-After", str(error.retry_after_s)),)
    return Problem(status, code, _title(code, status), error.message, tuple(found), headers)


def of_request(error: HTTPProblem) -> Problem:
    """The problem for a request that can't be taken as it came."""
    status = KINDS[error.code].status
    return Problem(status, error.code, _title(error.code, status), error.detail, (), tuple(error.headers.items()))


def of_http(status: int, headers: dict[str, str] | None = None) -> Problem:
    """The problem for a status that aiohttp chose: an unknown address, a method not allowed, unreadable
    HTTP."""
    code, detail = _CODE_OF_STATUS.get(
        status, (f"http_{status}", HTTPStatus(status).description or HTTPStatus(status).phrase)
    )
    return Problem(status, code, _title(code, status), detail, (), tuple((headers or {}).items()))


def unavailable(detail: str = errors.Unavailable.__doc__ or "") -> Problem:
    """A part that we need is away or hangs."""
    return Problem(503, "unavailable", KINDS["unavailable"].title, detail, (), (("Retry-After", str(RETRY_AFTER_S)),))


def _title(code: str, status: int) -> str:
    kind = KINDS.get(code)
    return kind.title if kind else HTTPStatus(status).phrase
