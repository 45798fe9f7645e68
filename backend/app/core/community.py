"""Enumerations of comments and reports, shared by schemas, models and services."""

from enum import StrEnum


class CommentPolicy(StrEnum):
    """Whether an article accepts comments, and whether they need approval."""

    OPEN = "open"
    HELD = "held"
    """A comment is public once the article's author or an editor approves it."""
    CLOSED = "closed"


class CommentStatus(StrEnum):
    """The visibility of a comment.

    Only the comment's author and moderators see pending and hidden comments.
    """

    VISIBLE = "visible"
    PENDING = "pending"
    """Waiting for approval."""
    HIDDEN = "hidden"
    """Hidden by a moderator."""


class ReportState(StrEnum):
    """The progress of a report."""

    OPEN = "open"
    IN_REVIEW = "in_review"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"
