"""Bulk import and export: the comments of an article record."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StringConstraints

from app.core.enums import CommentStatus
from app.core.validation import pattern
from app.schemas.types import TEXT_PATTERN, Input, Line, Moment, Username

MAX_IMPORTED_COMMENT = 100_000
MAX_GUEST_NAME = 100
MAX_GUEST_URL = 2000
CommentSourceId = Annotated[str, Line(200)]
GuestUrl = Annotated[
    str,
    StringConstraints(
        max_length=MAX_GUEST_URL,
        pattern=pattern(
            r"^https?://[!#-;=?-~]+$",
            "should be a URL that starts with http:// or https://, in ASCII without spaces",
        ),
    ),
]


class CommentRecord(Input):
    """A comment as it is exported and imported."""

    id: CommentSourceId
    """Identifies the comment among those of the article, in the next import too."""
    parent: CommentSourceId | None = None
    """The id of the comment that this one replies to. Otherwise the comment begins a thread."""
    content: Annotated[
        str,
        StringConstraints(min_length=1, max_length=MAX_IMPORTED_COMMENT, pattern=TEXT_PATTERN),
    ]
    """Markdown."""
    author: Username | None = None
    """The username of an author with an account."""
    name: Annotated[str, Line(MAX_GUEST_NAME)] | None = None
    """The name of an author without an account. By default the username, or `Anonymous`."""
    url: GuestUrl | None = None
    """The website of an author without an account."""
    status: Literal[CommentStatus.VISIBLE, CommentStatus.PENDING, CommentStatus.HIDDEN] = (
        CommentStatus.VISIBLE
    )
    locked: StrictBool = False
    """Whether the thread rejects new replies. It has no effect for a reply."""
    created_at: Moment | None = None
    """By default the time of the import."""
    edited_at: Moment | None = None


CommentRecords = Annotated[list[CommentRecord], Field(default_factory=list)]
