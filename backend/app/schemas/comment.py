"""Comments: what readers write below an article, and what becomes of it."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictBool, StringConstraints

from app.core.community import CommentStatus
from app.schemas.page import CursorQuery
from app.schemas.types import TEXT_PATTERN, Id, Input, Output, omitted
from app.schemas.user import UserPublic

MAX_COMMENT = 10_000

CommentContent = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_COMMENT, pattern=rf"(?s){TEXT_PATTERN}")
]
"""Markdown: paragraphs, emphasis, links, quotes, lists and code."""


class CommentCreate(Input):
    """A comment, or a reply to one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "*Indeed.*"}]})

    content: CommentContent
    parent_id: Id | None = None
    """The comment that this replies to."""


class CommentUpdate(Input):
    """Another text for a comment."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "*Indeed!*"}]})

    content: CommentContent


class CommentModeration(Input):
    """What a moderator makes of a comment."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "hidden"}]})

    status: Literal[CommentStatus.VISIBLE, CommentStatus.HIDDEN] = omitted()
    """`visible` approves what is pending, and shows what was hidden."""
    locked: StrictBool = omitted()
    """Whether its thread takes no more replies; of a thread's first comment."""


class CommentResponse(Output):
    """A comment; of one that is removed, only that it was there, where replies are."""

    id: int
    article_id: int
    thread_id: int
    """The comment that the thread begins with."""
    parent_id: int | None
    content: str | None
    html: str | None
    status: CommentStatus
    removed: bool
    """Deleted, hidden, or by somebody whom the reader has blocked."""
    locked: bool
    created_at: datetime
    updated_at: datetime
    edited_at: datetime | None
    author: UserPublic | None


class ThreadResponse(CommentResponse):
    """A comment that a thread begins with, and the first of its replies, oldest first."""

    reply_count: int
    replies: list[CommentResponse]


class ThreadQuery(CursorQuery):
    """Which page of an article's threads."""

    sort: Annotated[Literal["newest", "oldest"], Field(description="Of the threads")] = "newest"


class ModerationQuery(CursorQuery):
    """Which comments a moderator wants to see."""

    status: Literal[CommentStatus.PENDING, CommentStatus.HIDDEN] = CommentStatus.PENDING
