"""Comments on articles: threads, of which two levels are shown, however deep they go."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.community import CommentStatus
from app.db.base import Base, PrimaryKey, TimestampMixin


class Comment(TimestampMixin, Base):
    """A comment. Ids grow, so they are the order of a list.

    A trigger of the database (migration 0005) empties what somebody wrote whose account is deleted.
    """

    __tablename__ = "comments"
    __table_args__ = (
        CheckConstraint("status IN ('visible', 'pending', 'hidden')", name="status_known"),
        CheckConstraint("(root_id IS NULL) = (parent_id IS NULL)", name="replies_have_a_root"),
        CheckConstraint("root_id IS NULL OR locked_at IS NULL", name="threads_are_locked"),
    )

    id: Mapped[PrimaryKey]
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id", ondelete="CASCADE"))
    author_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    root_id: Mapped[int | None] = mapped_column(ForeignKey("comments.id", ondelete="CASCADE"))
    """The comment that the thread begins with; None where it is this one."""
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("comments.id", ondelete="CASCADE"), index=True
    )
    """What this is a reply to."""
    content: Mapped[str] = mapped_column(Text)
    """Markdown, as its author wrote it."""
    html: Mapped[str] = mapped_column(Text)
    status: Mapped[CommentStatus] = mapped_column(
        String(10), default=CommentStatus.VISIBLE, server_default=CommentStatus.VISIBLE.value
    )
    locked_at: Mapped[datetime | None]
    """Since when its thread takes no replies."""
    edited_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


Index(
    "ix_comments_threads",
    Comment.article_id,
    Comment.id,
    postgresql_where=text("root_id IS NULL"),
)
Index("ix_comments_article", Comment.article_id, Comment.id)
Index("ix_comments_replies", Comment.root_id, Comment.id)
_TO_MODERATE = text("status <> 'visible' AND deleted_at IS NULL")
Index("ix_comments_to_moderate", Comment.status, Comment.id, postgresql_where=_TO_MODERATE)
Index(
    "ix_comments_article_to_moderate",
    Comment.article_id,
    Comment.status,
    Comment.id,
    postgresql_where=_TO_MODERATE,
)
Index(
    "ix_comments_deleted",
    Comment.deleted_at,
    postgresql_where=text("deleted_at IS NOT NULL AND content <> ''"),
)
