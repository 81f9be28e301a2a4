"""Errors that the operator can put right, as one line that says what."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError


def one_line(error: Exception) -> str | None:
    """The line for `error`; None if it is a fault of ours, which deserves its traceback."""
    from alembic.util import CommandError
    from redis.exceptions import RedisError
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    from scheduler.errors import Invalid, PunctualError
    from scheduler.settings import SettingsError

    if isinstance(error, Invalid):
        return "; ".join(f"{each.field.lstrip('/?')}: {each.message}" for each in error.errors)
    if isinstance(error, PunctualError | SettingsError):
        return str(error)
    if isinstance(error, DBAPIError) and _has_no_tables(error):
        return "PUNCTUAL_DATABASE_URL: this database is not set up yet; run `punctual migrate` first"
    if isinstance(error, DBAPIError):
        return f"PUNCTUAL_DATABASE_URL: the database says: {_first_line(error.orig or error)}"
    if isinstance(error, SQLAlchemyError | CommandError):
        return f"PUNCTUAL_DATABASE_URL: {_first_line(error)}"
    if isinstance(error, RedisError):
        return f"PUNCTUAL_REDIS_URL: {_first_line(error)}"
    if isinstance(error, OSError | TimeoutError):
        return _first_line(error)
    return None


def _has_no_tables(error: DBAPIError) -> bool:
    """SQLite says it in words; MySQL in a number (ER_NO_SUCH_TABLE)."""
    arguments = getattr(error.orig, "args", ())
    return "no such table" in str(error.orig) or 1146 in arguments[:1]


def _first_line(error: BaseException) -> str:
    arguments = error.args
    # The drivers' errors are (number, text); the text is what a person can use.
    text = str(arguments[1]) if len(arguments) == 2 and isinstance(arguments[0], int) else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
