"""The fields that several schemas share: what is accepted, and how OpenAPI describes it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import pycountry
from annotated_types import GroupedMetadata
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    EmailStr,
    Field,
    StringConstraints,
    WithJsonSchema,
)

MAX_ID = 2**63 - 1
MAX_CONTENT_BYTES = 1024 * 1024

# One printable line with something on it; and text whose lines may break. Neither holds control
# characters: PostgreSQL cannot store NUL, and JSON makes six bytes of each other one.
_NO_BREAK = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
LINE_PATTERN = rf"^[^{_NO_BREAK}]*[^\s{_NO_BREAK}][^{_NO_BREAK}]*$"
STORABLE_PATTERN = r"^[^\x00]*$"
"""What PostgreSQL can look for: there is no NUL in any of its texts."""
TEXT_PATTERN = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"


class Input(BaseModel):
    """What a client sends: unknown fields are refused, so that a typo cannot pass unnoticed."""

    model_config = ConfigDict(extra="forbid")


class Output(BaseModel):
    """What a client gets: read from rows by attribute; every field that it reveals is listed."""

    model_config = ConfigDict(from_attributes=True)


def omitted() -> Any:
    """The default of a field that a partial update may leave out but not set to null."""

    def drop_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)

    return Field(default=None, json_schema_extra=drop_default)


@dataclass(frozen=True)
class Line(GroupedMetadata):
    """A single line of 1 to `max_length` characters; spaces around it go once it is checked."""

    max_length: int

    def __iter__(self) -> Iterator[Any]:
        yield StringConstraints(min_length=1, max_length=self.max_length, pattern=LINE_PATTERN)
        yield AfterValidator(str.strip)


def _digits_only(value: Any) -> Any:
    """Refuse what int() would forgive in a URL (`+1`, `1.0`, `01`): one resource, one URL."""
    if isinstance(value, str) and re.fullmatch(r"0|-?[1-9][0-9]*", value, re.ASCII) is None:
        raise ValueError("must be an integer in plain digits")
    return value


PlainDigits = BeforeValidator(_digits_only)
Id = Annotated[int, Field(ge=1, le=MAX_ID), PlainDigits]
"""A database id: a positive 64-bit integer."""


def _without_point(value: Any) -> Any:
    """`24.0` is an integer in JSON Schema, as it is in JavaScript."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WithoutPoint = BeforeValidator(_without_point)
"""For a strict integer in JSON."""


COUNTRIES = frozenset(country.alpha_2 for country in pycountry.countries)


def _known_country(code: str) -> str:
    if code not in COUNTRIES:
        raise ValueError("must be an ISO 3166 alpha-2 code in capitals, such as DE or US")
    return code


Country = Annotated[
    str,
    AfterValidator(_known_country),
    WithJsonSchema(
        {"type": "string", "enum": sorted(COUNTRIES), "description": "ISO 3166-1 alpha-2"}
    ),
]


Username = Annotated[
    str,
    StringConstraints(min_length=3, max_length=50, pattern=r"^[A-Za-z0-9._-]+$"),
]
"""ASCII without `@`: it can neither imitate another user's name nor pass for an email."""


def _bare_address(value: Any) -> Any:
    if isinstance(value, str) and "<" in value:
        raise ValueError("must be an address alone, without a name")
    if isinstance(value, str) and "=?" in value:  # RFC 2047: mail programs read another one in it
        raise ValueError("must not be encoded")
    return value


Email = Annotated[EmailStr, Field(max_length=254), BeforeValidator(_bare_address)]


def _at_most_bytes(limit: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text.encode()) > limit:
            raise ValueError(f"must be at most {limit} bytes in UTF-8")
        return text

    return check


_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII
)
_WANTED = "must be a moment from 1970 on with its offset from UTC, such as 2026-11-20T09:00:00Z"
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def _with_offset(value: Any) -> Any:
    if not isinstance(value, str) or _MOMENT.fullmatch(value) is None:
        raise ValueError(_WANTED)
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(_WANTED) from None
    if moment < EARLIEST:
        raise ValueError(_WANTED)
    return moment


Moment = Annotated[
    datetime,
    BeforeValidator(_with_offset),
    AfterValidator(_in_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""RFC 3339, from 1970 on, as aware UTC."""

Title = Annotated[str, Line(200)]
Content = Annotated[
    str,
    StringConstraints(min_length=10, max_length=MAX_CONTENT_BYTES, pattern=TEXT_PATTERN),
    AfterValidator(_at_most_bytes(MAX_CONTENT_BYTES)),
]

ImageUrl = Annotated[
    str,
    StringConstraints(
        max_length=2000, pattern=r"^(https?://[!#-;=?-~]+|/[!#-.0-;=?-~][!#-;=?-~]*)$"
    ),
]
"""An absolute address, or a path on this host such as `/media/...`; ASCII, percent-encoded."""
