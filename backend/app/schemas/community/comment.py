"""Schemas for comments and their moderation."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictBool, StringConstraints

from app.core.enums import CommentStatus
from app.schemas.accounts.user import UserPublic
from app.schemas.page import CursorQuery
from app.schemas.types import TEXT_PATTERN, Id, Input, Output, omitted

MAX_COMMENT = 10_000

CommentContent = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_COMMENT, pattern=TEXT_PATTERN)
]
"""Markdown: paragraphs, emphasis, links, quotes, lists and code."""


class CommentCreate(Input):
    """A comment or a reply."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "*Indeed.*"}]})

    content: CommentContent
    parent_id: Id | None = None
    """The comment to reply to."""


class CommentUpdate(Input):
    """The new content of a comment."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "*Indeed!*"}]})

    content: CommentContent


class CommentModeration(Input):
    """Moderation of a comment."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "hidden"}]})

    status: Literal[CommentStatus.VISIBLE, CommentStatus.HIDDEN] = omitted()
    """`visible` approves a pending comment, or shows a hidden one."""
    locked: StrictBool = omitted()
    """Whether the thread rejects new replies; allowed for a thread's first comment."""


class Guest(Output):
    """The author of an imported comment who has no account here."""

    name: str
    url: str | None
    """The author's website."""


class CommentResponse(Output):
    """A comment. A removed comment with replies has no content, author or guest."""

    id: int
    article_id: int
    thread_id: int
    """The first comment of the thread."""
    parent_id: int | None
    content: str | None
    html: str | None
    status: CommentStatus
    removed: bool
    """Deleted, hidden, or by a user whom the viewer has blocked."""
    locked: bool
    created_at: datetime
    updated_at: datetime
    edited_at: datetime | None
    author: UserPublic | None
    guest: Guest | None


class ThreadResponse(CommentResponse):
    """The first comment of a thread, with its first replies, oldest first."""

    reply_count: int
    replies: list[CommentResponse]


class CommentWithProfile(CommentResponse):
    """A comment with its author's profile, for the RealWorld API."""

    author_bio: str
    author_image_url: str | None
    follows_author: bool


class ThreadQuery(CursorQuery):
    """The page of an article's threads."""

    sort: Annotated[Literal["newest", "oldest"], Field(description="The order of the threads")] = (
        "newest"
    )


class ModerationQuery(CursorQuery):
    """The status and page of the moderation queue."""

    status: Literal[CommentStatus.PENDING, CommentStatus.HIDDEN] = CommentStatus.PENDING
