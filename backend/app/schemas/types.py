"""Field types that several schemas share, with their validation and OpenAPI schema."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from annotated_types import GroupedMetadata
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    EmailStr,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.core.languages import COUNTRIES
from app.core.validation import pattern

MAX_ID = 2**63 - 1
MAX_CONTENT_BYTES = 1024 * 1024

# A printable line with at least one visible character, and text with line breaks. Both reject
# control characters: PostgreSQL cannot store NUL, and JSON escapes the others to six bytes.
#
# A line consists of visible characters and the white space that ends no line. Naming U+2028 and
# U+2029 would be shorter. But generators of TypeScript write them into regular expressions
# unescaped, where they end the line. U+FEFF is white space in JavaScript only.
_SPACE = r" \xa0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff"
_VISIBLE = r"[^\s\x00-\x1f\x7f-\x9f]"
LINE_PATTERN = pattern(
    rf"^[{_SPACE}]*{_VISIBLE}(?:{_VISIBLE}|[{_SPACE}])*$",
    "should be one line of text with a visible character, without control characters",
)
STORABLE_PATTERN = pattern(r"^[^\x00]*$", "should not contain the character NUL")
"""PostgreSQL cannot store or compare NUL."""
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
_WITHOUT_CONTROL = "should not contain control characters except tabs and line breaks"
TEXT_PATTERN = pattern(rf"^[^{_CONTROL}]*$", _WITHOUT_CONTROL)
VISIBLE_TEXT_PATTERN = pattern(
    rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$",
    "should contain a visible character, and no control characters except tabs and line breaks",
)


class Input(BaseModel):
    """Base class of request schemas. Unknown fields are rejected, so that typos are noticed.

    OpenAPI has defaults of bodies in descriptions: openapi-typescript makes a property with
    `default` required. Query parameters keep `default`.
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        document = handler(schema)
        for field in handler.resolve_ref_schema(document).get("properties", {}).values():
            default = field.pop("default", None)
            if default is not None and default != "":
                described = f"{field['description']}. " if "description" in field else ""
                field["description"] = f"{described}Default: `{json.dumps(default)}`"
        return document


class Output(BaseModel):
    """Base class of response schemas, read from rows by attribute.

    OpenAPI has all fields as required. Schemas whose fields may be absent override this.
    """

    model_config = ConfigDict(
        from_attributes=True, json_schema_serialization_defaults_required=True
    )


MAY_BE_ABSENT = ConfigDict(json_schema_serialization_defaults_required=False)
"""The configuration of a response schema that omits fields."""


def omitted() -> Any:
    """Return the default of a field that a partial update may omit, but not set to null."""

    def drop_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)

    return Field(default=None, json_schema_extra=drop_default)


@dataclass(frozen=True)
class Line(GroupedMetadata):
    """A single line of 1 to `max_length` characters, stripped after validation."""

    max_length: int

    def __iter__(self) -> Iterator[Any]:
        yield StringConstraints(min_length=1, max_length=self.max_length, pattern=LINE_PATTERN)
        yield AfterValidator(str.strip)


def _validate_plain_digits(value: Any) -> Any:
    """Reject forms that int() accepts in a URL (`+1`, `1.0`, `01`): one URL per resource."""
    if isinstance(value, str) and re.fullmatch(r"0|-?[1-9][0-9]*", value, re.ASCII) is None:
        raise ValueError("must be an integer without a plus sign, leading zeros or decimals")
    return value


PlainDigits = BeforeValidator(_validate_plain_digits)
Id = Annotated[int, Field(ge=1, le=MAX_ID), PlainDigits]
"""A database id: a positive 64-bit integer."""


def _integral_float_to_int(value: Any) -> Any:
    """Convert `24.0` to 24, which JSON Schema and JavaScript treat as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WithoutPoint = BeforeValidator(_integral_float_to_int)
"""For a strict integer in a JSON body."""


def _validate_country(code: str) -> str:
    if code not in COUNTRIES:
        raise ValueError("must be an ISO 3166-1 alpha-2 code in upper case, such as DE or US")
    return code


Country = Annotated[
    str,
    AfterValidator(_validate_country),
    WithJsonSchema(
        {"type": "string", "enum": sorted(COUNTRIES), "description": "ISO 3166-1 alpha-2"}
    ),
]


USERNAME_PATTERN = pattern(
    r"^[A-Za-z0-9._-]+$",
    "should contain only the letters A to Z, digits, dots, underscores and hyphens",
)
Username = Annotated[
    str,
    StringConstraints(min_length=3, max_length=50, pattern=USERNAME_PATTERN),
]
"""ASCII without `@`: it cannot imitate another username, nor be mistaken for an email."""


def _validate_bare_address(value: Any) -> Any:
    if isinstance(value, str) and "<" in value:
        raise ValueError("must be an email address without a display name")
    if (
        isinstance(value, str) and "=?" in value
    ):  # RFC 2047 encoding: mail clients would decode another address
        raise ValueError("must not contain an RFC 2047 encoded word")
    return value


Email = Annotated[EmailStr, Field(max_length=254), BeforeValidator(_validate_bare_address)]


def _max_bytes(limit: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text.encode()) > limit:
            raise ValueError(f"must be at most {limit} bytes in UTF-8")
        return text

    return check


_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII
)
_TIMESTAMP_MESSAGE = (
    "must be a date and time from 1970 to 9999 with an offset from UTC, such as"
    " 2026-11-20T09:00:00Z"
)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""A microsecond before the year 10000, asyncpg would store `infinity`."""


def _validate_timestamp(value: Any) -> Any:
    if not isinstance(value, str) or _TIMESTAMP.fullmatch(value) is None:
        raise ValueError(_TIMESTAMP_MESSAGE)
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        value = value.astimezone(UTC)
    except OverflowError:
        raise ValueError(_TIMESTAMP_MESSAGE) from None
    if not EARLIEST <= value <= LATEST:
        raise ValueError(_TIMESTAMP_MESSAGE)
    return value


Moment = Annotated[
    datetime,
    BeforeValidator(_validate_timestamp),
    AfterValidator(_to_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""RFC 3339, from 1970 to 9999, converted to UTC."""

SLUG_PATTERN = pattern(
    r"^[a-z0-9]+(-[a-z0-9]+)*$",
    "should contain only the letters a to z and digits, with single hyphens between them",
)
Title = Annotated[str, Line(200)]
Content = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_CONTENT_BYTES, pattern=VISIBLE_TEXT_PATTERN),
    AfterValidator(_max_bytes(MAX_CONTENT_BYTES)),
]
ImportedContent = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_CONTENT_BYTES, pattern=TEXT_PATTERN),
    AfterValidator(_max_bytes(MAX_CONTENT_BYTES)),
]
"""Like Content, but it may be white space alone, as some posts of other systems."""

ImageUrl = Annotated[
    str,
    StringConstraints(
        max_length=2000,
        pattern=pattern(
            r"^(https?://[!#-;=?-~]+|/[!#-.0-;=?-~][!#-;=?-~]*)$",
            "should be a URL that starts with http://, https:// or a single slash, in ASCII "
            "without spaces",
        ),
    ),
]
"""An absolute URL, or a path on this host such as `/media/...`; ASCII, percent-encoded."""
