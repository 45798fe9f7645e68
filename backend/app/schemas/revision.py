"""Revisions, as those who may change the article see them."""

from datetime import datetime
from typing import Literal

from app.schemas.types import Output
from app.schemas.user import UserPublic


class RevisionSummary(Output):
    """A title and a text that the article had before."""

    id: int
    version: int
    """The article's version that had them last."""
    title: str
    bytes: int
    """Of the text, in UTF-8."""
    author: UserPublic | None
    """Who wrote them; null when they have left."""
    created_at: datetime
    """When they were written."""


class RevisionResponse(RevisionSummary):
    """A revision with its text."""

    content: str


class RevisionDiff(Output):
    """What has to be changed to make of one text another, as `diff -u` prints it."""

    revision_id: int
    against: int | Literal["current"]
    """The other revision, or the article as it is."""
    diff: str
    """Empty where the two are the same."""
