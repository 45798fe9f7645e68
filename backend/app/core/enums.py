"""Enumerations that several layers use."""

from enum import StrEnum


class Role(StrEnum):
    """Authors change their own articles, editors change all articles, admins change everything."""

    AUTHOR = "author"
    EDITOR = "editor"
    ADMIN = "admin"


class Scope(StrEnum):
    """An API key needs a scope for each operation; its user's role still applies."""

    ARTICLES_READ = "articles:read"
    ARTICLES_WRITE = "articles:write"
    MEDIA_READ = "media:read"
    MEDIA_WRITE = "media:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    ADDRESSES_READ = "addresses:read"
    ADDRESSES_WRITE = "addresses:write"
    COMMUNITY_READ = "community:read"
    COMMUNITY_WRITE = "community:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"


SCOPE_DESCRIPTIONS = {
    Scope.ARTICLES_READ: "Read articles, including your drafts",
    Scope.ARTICLES_WRITE: "Create, change and delete articles",
    Scope.MEDIA_READ: "List your images",
    Scope.MEDIA_WRITE: "Upload, describe and delete images",
    Scope.USERS_READ: "Read users, including your private fields",
    Scope.USERS_WRITE: "Change your profile",
    Scope.ADDRESSES_READ: "Read your addresses",
    Scope.ADDRESSES_WRITE: "Add, change and delete your addresses",
    Scope.COMMUNITY_READ: "Read comments, profiles, favorites and reports as this user",
    Scope.COMMUNITY_WRITE: "Follow, favorite, comment, moderate and report",
    Scope.WEBHOOKS_READ: "List your webhooks and their deliveries",
    Scope.WEBHOOKS_WRITE: "Create, change, test and delete your webhooks, which get your events",
}


class Purpose(StrEnum):
    """The only action that an account token allows."""

    REGISTER = "register"
    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - a purpose, not a password


class TagAction(StrEnum):
    """What happens to a tag."""

    RENAME = "rename"
    MERGE = "merge"
    """Another tag replaces it."""
    DELETE = "delete"


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


class ImportState(StrEnum):
    """The progress of an import. All states except the first two are final."""

    RECEIVING = "receiving"
    """The body is being received."""
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    """A limit was reached: the remaining records were not imported."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The server was stopped or restarted."""


class ExportFormat(StrEnum):
    """The format of an export."""

    NDJSON = "ndjson"
    """Pressroom's own format, which loses nothing."""
    MARKDOWN = "markdown"
    GHOST = "ghost"


class EventKind(StrEnum):
    """What happened, as integrations are told. Events of articles are of public ones."""

    ARTICLE_PUBLISHED = "article.published"
    ARTICLE_UPDATED = "article.updated"
    ARTICLE_UNPUBLISHED = "article.unpublished"
    ARTICLE_DELETED = "article.deleted"
    """A public article went to the trash."""
    ARTICLE_SCHEDULED = "article.scheduled"
    """The moment of a scheduled article was reached; comes with ARTICLE_PUBLISHED."""
    COMMENT_CREATED = "comment.created"
    """A comment became visible, at once or by approval."""
    COMMENT_HELD = "comment.held"
    """A comment waits for approval."""
    COMMENT_DELETED = "comment.deleted"
    """A comment was deleted or hidden."""
    USER_CREATED = "user.created"
    USER_DISABLED = "user.disabled"
    MEDIA_CREATED = "media.created"


class LiveTopic(StrEnum):
    """What a stream or a socket may subscribe to."""

    CHANGES = "changes"
    """Public changes of articles."""
    FEED = "feed"
    """Those of the users whom the subscriber follows."""
    COMMENTS = "comments"
    """The comments of an article."""
    MODERATION = "moderation"
    """Comments that wait for the subscriber's decision, or no longer wait."""
    PRESENCE = "presence"
    """Who edits an article. Only sockets have it."""
