"""Pending changes of tags that have many articles."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.enums import TagAction
from app.db.base import Base, PrimaryKey


class TagChange(Base):
    """A change of a tag that a part of its articles do not have yet.

    While a renamed tag has one, triggers leave its name on its articles as it is (migration 0021).
    """

    __tablename__ = "tag_changes"
    __table_args__ = (
        CheckConstraint("action IN ('rename', 'merge', 'delete')", name="action_known"),
        CheckConstraint("(action = 'merge') = (into_id IS NOT NULL)", name="into_of_merge"),
    )

    id: Mapped[PrimaryKey]
    tag_id: Mapped[int] = mapped_column(ForeignKey("tags.id", ondelete="CASCADE"), unique=True)
    action: Mapped[TagAction] = mapped_column(String(10))
    into_id: Mapped[int | None] = mapped_column(
        ForeignKey("tags.id", ondelete="CASCADE"), index=True
    )
    """The tag that replaces the merged one."""
    spelling: Mapped[str | None] = mapped_column(String(50))
    """The requested name, which merged articles show until the other tag is listed."""
    after_article_id: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """The articles up to this one have the new name of a renamed tag."""
