"""The change feed, as static builders and indexers read it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from app.schemas.types import Input, Output, PlainDigits

DEFAULT_CHANGES = 100
MAX_CHANGES = 1000
LATEST = "latest"
"""In place of a cursor: the end of the feed as it is now."""


class ChangeKind(StrEnum):
    """What became of an article, for its readers."""

    CREATED = "created"
    UPDATED = "updated"
    UNPUBLISHED = "unpublished"
    DELETED = "deleted"


class ChangesQuery(Input):
    """The query parameters of the change feed."""

    cursor: Annotated[
        str,
        Field(
            max_length=1000,
            description="`next` of the answer before, or an entry's `cursor`; `latest` skips all "
            "that there is",
        ),
    ] = ""
    limit: Annotated[
        int, Field(ge=1, le=MAX_CHANGES, description="How many to return at most"), PlainDigits
    ] = DEFAULT_CHANGES


class ChangeResponse(Output):
    """That readers see an article, see it changed, or see it no more."""

    cursor: str
    """Where to go on behind this entry."""
    kind: ChangeKind
    article_id: int
    slug: str
    """What it was called then."""
    occurred_at: datetime


class ChangesResponse(Output):
    """Some changes in the order in which they happened, and where to go on."""

    changes: list[ChangeResponse]
    next: str
    """To ask with for what follows, now or later: it is there whether or not there is more yet."""
