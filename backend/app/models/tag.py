"""Tags: words that articles share."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, SmallInteger, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class Tag(Base):
    """A tag: `slug` is what it is, `name` how it is spelt."""

    __tablename__ = "tags"

    id: Mapped[PrimaryKey]
    name: Mapped[str] = mapped_column(String(50))
    slug: Mapped[str] = mapped_column(String(100), unique=True)


class ArticleTag(Base):
    """That an article has a tag."""

    __tablename__ = "article_tags"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    tag_id: Mapped[int] = mapped_column(ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    """Where it stood when the article's author named its tags."""
    listed_at: Mapped[datetime | None]
    """The article's `published_at` while it is in circulation, kept by triggers: a tag's articles
    are read from one index in their order, however many there are."""


Index(
    "ix_article_tags_listed",
    ArticleTag.tag_id,
    ArticleTag.listed_at.desc(),
    ArticleTag.article_id.desc(),
)
