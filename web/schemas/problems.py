"""The body of every error (RFC 9457), for the OpenAPI document; `web.problems` writes it."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict


class FieldProblem(TypedDict):
    """One thing wrong with what was sent."""

    field: Annotated[
        str,
        Field(description="A JSON Pointer into the body, or `?name` for a parameter", examples=["/due_at"]),
    ]
    message: str
    code: str


class Problem(TypedDict):
    """What went wrong, and what to do about it (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:punctual:error:not_found"])]
    title: str
    status: int
    detail: Annotated[str, Field(description="What to do, in words for a person")]
    code: Annotated[str, Field(examples=["not_found"])]
    request_id: str
    errors: Annotated[NotRequired[list[FieldProblem]], Field(description="On 422 only")]
