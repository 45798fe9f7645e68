"""Comments on articles. Threads have any depth, and are shown in two levels."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.enums import CommentStatus
from app.db.base import Base, PrimaryKey, TimestampMixin


class Comment(TimestampMixin, Base):
    """A comment. Ids are ascending, so they determine the order of a list.

    A database trigger (migration 0005) clears the comments of deleted accounts.
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
    """The first comment of the thread; None if it is this one."""
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("comments.id", ondelete="CASCADE"), index=True
    )
    """The comment that this one replies to."""
    guest_name: Mapped[str | None] = mapped_column(String(100))
    """The name of an author without an account. Only imported comments have one."""
    guest_url: Mapped[str | None] = mapped_column(String(2000))
    source_id: Mapped[str | None] = mapped_column(Text)
    """The id of an imported comment in the source of its article."""
    content: Mapped[str] = mapped_column(Text)
    """Markdown source."""
    html: Mapped[str] = mapped_column(Text)
    status: Mapped[CommentStatus] = mapped_column(
        String(10), default=CommentStatus.VISIBLE, server_default=CommentStatus.VISIBLE.value
    )
    locked_at: Mapped[datetime | None]
    """When the thread was locked against replies."""
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
    "uq_comments_source_id",
    Comment.article_id,
    Comment.source_id,
    unique=True,
    postgresql_where=text("source_id IS NOT NULL"),
)
Index(
    "ix_comments_deleted",
    Comment.deleted_at,
    postgresql_where=text("deleted_at IS NOT NULL AND content <> ''"),
)
