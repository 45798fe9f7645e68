"""Reports of articles and comments."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.enums import ReportState
from app.db.base import Base, PrimaryKey, TimestampMixin


class Report(TimestampMixin, Base):
    """A report of an article or a comment; one per reporter and subject."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint("num_nonnulls(article_id, comment_id) = 1", name="one_subject"),
        CheckConstraint(
            "state IN ('open', 'in_review', 'resolved', 'dismissed')", name="state_known"
        ),
        UniqueConstraint("reporter_id", "article_id", name="uq_reports_article"),
        UniqueConstraint("reporter_id", "comment_id", name="uq_reports_comment"),
    )

    id: Mapped[PrimaryKey]
    reporter_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    article_id: Mapped[int | None] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), index=True
    )
    comment_id: Mapped[int | None] = mapped_column(
        ForeignKey("comments.id", ondelete="CASCADE"), index=True
    )
    reason: Mapped[str] = mapped_column(String(1000))
    state: Mapped[ReportState] = mapped_column(
        String(10), default=ReportState.OPEN, server_default=ReportState.OPEN.value
    )
    note: Mapped[str] = mapped_column(String(1000), default="", server_default="")
    """Visible to editors only."""
    handled_by: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    """The editor who last changed the report."""
    handled_at: Mapped[datetime | None]


Index("ix_reports_state", Report.state, Report.id)
