"""Schemas for the change feed."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from app.schemas.types import Input, Output, PlainDigits

DEFAULT_CHANGES = 100
MAX_CHANGES = 1000
LATEST = "latest"
"""A cursor value for the current end of the feed."""


class ChangeKind(StrEnum):
    """The kind of a public change of an article."""

    CREATED = "created"
    UPDATED = "updated"
    UNPUBLISHED = "unpublished"
    DELETED = "deleted"


class ChangesQuery(Input):
    """Query parameters of the change feed."""

    cursor: Annotated[
        str,
        Field(
            max_length=1000,
            description="`next` of the previous response, or an entry's `cursor`; `latest` skips "
            "all existing entries",
        ),
    ] = ""
    limit: Annotated[
        int, Field(ge=1, le=MAX_CHANGES, description="The maximum number of items"), PlainDigits
    ] = DEFAULT_CHANGES


class ChangeResponse(Output):
    """A public change of an article."""

    cursor: str
    """The cursor after this entry."""
    kind: ChangeKind
    article_id: int
    slug: str
    """The slug at that time."""
    occurred_at: datetime


class ChangesResponse(Output):
    """A page of changes in commit order, and the cursor of the next page."""

    changes: list[ChangeResponse]
    next: str
    """The cursor for the next request; always set, even if there are no more changes yet."""
