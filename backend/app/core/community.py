"""The words of what readers do, which schemas, models and services all speak of."""

from enum import StrEnum


class CommentPolicy(StrEnum):
    """Whether an article takes comments, and when others see them."""

    OPEN = "open"
    HELD = "held"
    """Others see a comment once the article's author or an editor has approved it."""
    CLOSED = "closed"


class CommentStatus(StrEnum):
    """Who sees a comment: everybody, or its author and those who moderate."""

    VISIBLE = "visible"
    PENDING = "pending"
    """Held for approval."""
    HIDDEN = "hidden"
    """By a moderator."""


class ReportState(StrEnum):
    """How far editors have come with a report."""

    OPEN = "open"
    IN_REVIEW = "in_review"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"
