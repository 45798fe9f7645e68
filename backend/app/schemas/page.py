"""Which part of a list a client wants."""

from typing import Annotated

from pydantic import Field

from app.schemas.types import Input, PlainDigits

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MAX_SKIP = 10_000


class PageQuery(Input):
    """The query parameters `skip` and `limit` of every list."""

    skip: Annotated[
        int, Field(ge=0, le=MAX_SKIP, description="How many to leave out"), PlainDigits
    ] = 0
    limit: Annotated[
        int, Field(ge=1, le=MAX_LIMIT, description="How many to return at most"), PlainDigits
    ] = DEFAULT_LIMIT


class CursorQuery(Input):
    """The query parameters of a list that is read page after page."""

    limit: Annotated[
        int, Field(ge=1, le=MAX_LIMIT, description="How many to return at most"), PlainDigits
    ] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Field(max_length=2000, description="From a `Link` header")] = None
