"""Articles: what the blog is made of."""

from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.base import Base, PrimaryKey, TimestampMixin

if TYPE_CHECKING:
    from app.models.user import User


class Article(TimestampMixin, Base):
    __tablename__ = "articles"
    __table_args__ = (
        CheckConstraint("char_length(title) >= 1", name="title_not_empty"),
        CheckConstraint("char_length(content) >= 10", name="content_length"),
    )

    id: Mapped[PrimaryKey]
    title: Mapped[str] = mapped_column(String(200))
    content: Mapped[str] = mapped_column(Text)
    published: Mapped[bool] = mapped_column(default=False, server_default=false())
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))

    author: Mapped["User"] = relationship(back_populates="articles", lazy="raise")


# The public list, newest first, without a sort; and an author's own.
Index(
    "ix_articles_published_newest",
    Article.created_at.desc(),
    Article.id.desc(),
    postgresql_where=text("published"),
)
Index("ix_articles_author_newest", Article.author_id, Article.created_at.desc(), Article.id.desc())
