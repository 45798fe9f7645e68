"""Tags and their assignment to articles."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, SmallInteger, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class Tag(Base):
    """A tag: `key` identifies it, `slug` is its URL, `name` its public spelling.

    Triggers (migration 0007) set `is_listed`, and then the public name and slug.
    """

    __tablename__ = "tags"

    id: Mapped[PrimaryKey]
    name: Mapped[str] = mapped_column(String(50))
    key: Mapped[str | None] = mapped_column(Text, unique=True)
    """The name as compared by `app.content.slugs.tag_key`.

    None for a duplicate that the previous release created, until both tags are merged.
    """
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    wanted_slug: Mapped[str | None] = mapped_column(String(100))
    """The slug without its numeric suffix, if another tag had that slug first."""
    is_listed: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether a public article has the tag, or had it at the last cleanup."""


Index("ix_tags_listed", Tag.slug, postgresql_where=text("is_listed"))


class ArticleTag(Base):
    """The assignment of a tag to an article."""

    __tablename__ = "article_tags"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    tag_id: Mapped[int] = mapped_column(ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    """The tag's position in the author's list."""
    spelling: Mapped[str | None] = mapped_column(String(50))
    """The author's spelling, shown until the tag is listed; None for the tag's name."""
    listed_at: Mapped[datetime | None]
    """The article's `published_at` while it is published or scheduled, set by triggers.

    A tag's articles are read from one index in this order.
    """


Index(
    "ix_article_tags_listed",
    ArticleTag.tag_id,
    ArticleTag.listed_at.desc(),
    ArticleTag.article_id.desc(),
)
