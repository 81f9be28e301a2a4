"""The domain's errors: what a service raises when it can't do what was asked.

The docstring of a class is its default message and says what to do. The web's door maps classes to statuses
in one table.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One thing wrong with the input. `field` is a JSON Pointer (RFC 6901) into the body, or `?name` for a
    parameter."""

    field: str
    message: str
    code: str = "invalid"


class PunctualError(Exception):
    """Something went wrong that the caller can act on."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.error_code = code or self.code
        super().__init__(self.message)


class Invalid(PunctualError):
    """Some of what was sent is not valid; `errors` names each place and says what it takes."""

    code = "validation_failed"

    def __init__(self, *errors: FieldError) -> None:
        super().__init__()
        self.errors = errors


class UnsupportedMediaType(PunctualError):
    """This is not a kind of file that is taken here; send one that is."""

    code = "unsupported_media_type"


class InvalidToken(PunctualError):
    """This link is wrong, was used already or is too old; ask for a new one."""

    code = "invalid_token"


class NotFound(PunctualError):
    """There is nothing here, or nothing that you may see; check the address."""

    code = "not_found"


class Forbidden(PunctualError):
    """You may see this but not do that; ask its creator or an administrator."""

    code = "forbidden"


class Unauthenticated(PunctualError):
    """Sign in, and send the access token as `Authorization: Bearer …`."""

    code = "unauthenticated"


class Conflict(PunctualError):
    """This does not go together with the present state; read it again, then decide."""

    code = "conflict"


class TooMany(PunctualError):
    """That was asked for too often; wait, then ask again."""

    code = "rate_limited"

    def __init__(self, message: str | None = None, *, retry_after_s: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class PreconditionFailed(PunctualError):
    """It was changed since you read it, and nothing was done; read it again, then send the change with the
    new ETag."""

    code = "precondition_failed"


class BadCursor(PunctualError):
    """This cursor is not one that this list gave; start again without it."""

    code = "bad_cursor"


class Unavailable(PunctualError):
    """A part that this needs is away just now; try again in a few seconds."""

    code = "unavailable"
