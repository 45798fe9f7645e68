"""Query parameters for pagination."""

from typing import Annotated

from pydantic import Field

from app.schemas.types import Input, PlainDigits

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MAX_SKIP = 10_000


class PageQuery(Input):
    """Query parameters of lists with offset pagination."""

    skip: Annotated[
        int, Field(ge=0, le=MAX_SKIP, description="The number of items to skip"), PlainDigits
    ] = 0
    limit: Annotated[
        int, Field(ge=1, le=MAX_LIMIT, description="The maximum number of items"), PlainDigits
    ] = DEFAULT_LIMIT


class CursorQuery(Input):
    """Query parameters of lists with cursor pagination."""

    limit: Annotated[
        int, Field(ge=1, le=MAX_LIMIT, description="The maximum number of items"), PlainDigits
    ] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Field(max_length=2000, description="From a `Link` header")] = None
