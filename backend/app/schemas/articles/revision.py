"""Schemas for revisions of articles."""

from datetime import datetime
from typing import Literal

from app.schemas.accounts.user import UserPublic
from app.schemas.types import Output


class RevisionSummary(Output):
    """An earlier title and content of an article."""

    id: int
    version: int
    """The last version of the article with this text."""
    title: str
    bytes: int
    """The length of the content in UTF-8."""
    author: UserPublic | None
    """The author of this text; null if the account was deleted."""
    created_at: datetime
    """When the text was written."""


class RevisionResponse(RevisionSummary):
    """A revision with its content."""

    content: str


class CurrentText(Output):
    """The current text of an article, and who wrote it when."""

    version: int
    title: str
    content: str
    author: UserPublic | None
    created_at: datetime


class RevisionDiff(Output):
    """The differences between two texts in the unified format."""

    revision_id: int
    against: int | Literal["current"]
    """The other revision, or the current article."""
    diff: str
    """Empty if the texts are equal."""
