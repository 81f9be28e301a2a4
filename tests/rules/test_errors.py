"""Errors: what they say when nobody says more."""

from __future__ import annotations

import pytest

from scheduler import errors
from scheduler.errors import PreconditionFailed, PunctualError, TooMany


def _all(kind: type[PunctualError]) -> list[type[PunctualError]]:
    return [kind] + [each for child in kind.__subclasses__() for each in _all(child)]


@pytest.mark.parametrize("kind", [kind for kind in _all(PunctualError) if kind.__module__ == errors.__name__])
def test_the_default_message_is_one_line(kind: type[PunctualError]) -> None:
    error = TooMany(retry_after_s=1) if kind is TooMany else kind()
    assert error.message and error.message == " ".join(error.message.split())
    assert str(error) == error.message


def test_a_wrapped_docstring_reads_as_a_sentence() -> None:
    assert "\n" in (PreconditionFailed.__doc__ or "")
    assert PreconditionFailed().message.endswith("send the change with the new ETag.")


def test_ones_own_message_stays_as_it_is() -> None:
    assert PreconditionFailed("a  b").message == "a  b"
