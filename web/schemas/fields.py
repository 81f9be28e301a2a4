"""Types of fields: text without control characters, instants, time zones, ids, whole numbers.

Each carries a JSON Schema that says just what it takes, so that what the OpenAPI document calls valid is
taken and what it
does not is refused (schemathesis holds us to it). Annotations are read by pydantic at run time.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from typing_extensions import TypeAliasType

from scheduler.accounts.addresses import normalise_email
from scheduler.clock import parse_instant, time_zones, zone
from scheduler.identifiers import parse_id
from scheduler.paging import DEFAULT_LIMIT, GREATEST_LIMIT

# Category Cc of Unicode. Long texts may have line breaks and tabs.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_BREAKS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ANY = r"[^\x00-\x1f\x7f-\x9f]"
LINE_PATTERN = rf"^{_ANY}*$"
NON_BLANK_PATTERN = rf"^{_ANY}*[^\s\x00-\x1f\x7f-\x9f]{_ANY}*$"
TEXT_PATTERN = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"

_DATE = (
    r"(?:19[7-9]\d|20\d\d|21\d\d)-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
INSTANT_PATTERN = rf"^{_DATE}[Tt](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)$"


class Body(BaseModel):
    """A JSON object that a client sends: no unknown fields, no conversions between JSON's types."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """The fields that the client sent, by name: of a merge patch, what is to change."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class Query(BaseModel):
    """Query parameters: every value arrives as text."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


def optional() -> Any:
    """A field that may be left out, and for which null is no value: it stands in `given()` only when it was
    sent."""
    return Field(default_factory=lambda: None)


def sentence(text: str) -> str:
    """`text` with its first letter in upper case, and the rest as it is."""
    return text[:1].upper() + text[1:]


_UNION_TAG = "\x00"


def union_tag(kind: str) -> str:
    """The tag of a union's member. Pydantic puts it into the location of a fault; `without_union_tags` takes it out."""
    return _UNION_TAG + kind


def without_union_tags(location: Sequence[str | int]) -> list[str | int]:
    """Where in what was sent a fault is."""
    return [part for part in location if not (isinstance(part, str) and part.startswith(_UNION_TAG))]


def _refuse_control(text: str) -> str:
    if _CONTROL.search(text):
        raise PydanticCustomError("control_character", "Must be one line without control characters")
    return text


def _refuse_control_but_breaks(text: str) -> str:
    if _CONTROL_BUT_BREAKS.search(text):
        raise PydanticCustomError(
            "control_character", "Must not hold control characters other than line breaks and tabs"
        )
    return text


def _refuse_blank(text: str) -> str:
    if text and not text.strip():
        raise PydanticCustomError("blank", "Must hold more than spaces")
    return _refuse_control(text)


@dataclass(frozen=True)
class Line:
    """`Annotated[str, Line(1, 50)]`: one line of so many code points, without control characters.

    Not only spaces either, when it is to hold anything. `schema` is added to its JSON Schema.
    """

    minimum: int
    maximum: int
    schema: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        check = _refuse_blank if self.minimum else _refuse_control
        return _checked_text(check, min_length=self.minimum, max_length=self.maximum)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        pattern = NON_BLANK_PATTERN if self.minimum else LINE_PATTERN
        return {**handler(core), "pattern": pattern, **self.schema}


@dataclass(frozen=True)
class LongText:
    """`Annotated[str, LongText(20_000)]`: text with no control characters but line breaks and tabs."""

    maximum: int
    schema: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _checked_text(_refuse_control_but_breaks, max_length=self.maximum)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "pattern": TEXT_PATTERN, **self.schema}


def _checked_text(check: Callable[[str], str], **limits: Any) -> CoreSchema:
    return core_schema.no_info_after_validator_function(check, core_schema.str_schema(strict=True, **limits))


def _instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise PydanticCustomError("wrong_type", "Must be a date-time as text, like 2026-11-20T09:00:00Z")
    try:
        return parse_instant(value)
    except ValueError as error:
        raise PydanticCustomError("bad_instant", "{reason}", {"reason": sentence(str(error))}) from None


Instant = TypeAliasType(
    "Instant",
    Annotated[
        datetime,
        PlainValidator(_instant),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": INSTANT_PATTERN,
                "description": "RFC 3339 with its offset, years 1970 to 2199",
                "examples": ["2026-11-20T09:00:00+01:00"],
            }
        ),
    ],
)


def _time_zone(value: str) -> str:
    try:
        zone(value)
    except ValueError:
        raise PydanticCustomError("unknown_time_zone", "Must be an IANA time zone, like Europe/Berlin") from None
    return value


def _time_zone_pattern() -> str:
    """All names as one pattern, not as an enum: tools that try each member of an enum would make 600
    requests of it."""
    return "^(?:" + "|".join(re.escape(name).replace(r"\-", "-") for name in sorted(time_zones())) + ")$"


# Named, so that the pattern stands once in the document.
TimeZone = TypeAliasType(
    "TimeZone",
    Annotated[
        str,
        AfterValidator(_time_zone),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": _time_zone_pattern(),
                "description": "An IANA time zone (the pattern lists them all)",
                "examples": ["Europe/Berlin"],
            }
        ),
    ],
)


def _id(value: Any) -> UUID:
    parsed = parse_id(value) if isinstance(value, str) else None
    if parsed is None:
        raise PydanticCustomError("unknown_id", "Must be the id of something that you can see")
    return parsed


Id = Annotated[UUID, PlainValidator(_id), WithJsonSchema({"type": "string", "format": "uuid"})]


_DIGITS = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


def _whole_from_json(value: Any) -> Any:
    """JSON has one kind of number: 30.0 is the whole number 30 (as JSON Schema has it)."""
    return int(value) if type(value) is float and value.is_integer() else value


def _whole_from_text(value: Any) -> Any:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise PydanticCustomError("wrong_type", "Must be a whole number")


@dataclass(frozen=True)
class Whole:
    """`Annotated[int, Whole(1, 60)]`: a whole number from one to the other; `as_text` in a query."""

    minimum: int
    maximum: int
    as_text: bool = False

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            _whole_from_text if self.as_text else _whole_from_json,
            core_schema.int_schema(strict=True, ge=self.minimum, le=self.maximum),
        )


def _truth_from_text(value: Any) -> Any:
    if value in ("true", "false"):
        return value == "true"
    raise PydanticCustomError("wrong_type", "Must be true or false")


Truth = Annotated[bool, BeforeValidator(_truth_from_text)]
"""`true` or `false` in a query."""


def repeated(default: Any = None) -> Any:
    """A query parameter that may be given several times."""
    return Field(
        default_factory=list if default is None else default,
        json_schema_extra={"x-repeat": True},
        max_length=100,
    )


def _email(value: str) -> str:
    """The address as it is stored and compared."""
    try:
        return normalise_email(value)
    except ValueError as error:
        raise PydanticCustomError("bad_email", "{reason}", {"reason": sentence(str(error))}) from None


Email = Annotated[str, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(_email)]

Cursor = Annotated[
    str,
    Field(min_length=1, max_length=1000, description="`next_cursor` of the page before; opaque"),
]
Limit = Annotated[int, Whole(1, GREATEST_LIMIT, as_text=True)]


class PageQuery(Query):
    """What every list takes."""

    limit: Limit = Field(DEFAULT_LIMIT, description="How many items a page has")
    cursor: Cursor | None = None
    count: Truth = Field(False, description="Whether to say how many there are in all, as `total`")


Total = Annotated[int, Field(description="With `count=true`")]
"""How many items a list has in all."""


Status = Literal["todo", "in_progress", "completed"]
Priority = Literal["low", "medium", "high", "urgent"]
