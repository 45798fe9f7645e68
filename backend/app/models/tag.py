"""Tags: words that articles share."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, SmallInteger, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class Tag(Base):
    """A tag. `key` identifies it, `slug` is its address, `name` its public spelling.

    Triggers (migration 0007) set `is_listed`, and then the name and the slug that readers see.
    """

    __tablename__ = "tags"

    id: Mapped[PrimaryKey]
    name: Mapped[str] = mapped_column(String(50))
    key: Mapped[str | None] = mapped_column(Text, unique=True)
    """The name as `app.core.text.tag_key` compares it; None where the previous release created a
    second tag with one key, until the two are merged."""
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    wanted_slug: Mapped[str | None] = mapped_column(String(100))
    """The slug without its number, where another tag had it first."""
    is_listed: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether readers see an article with it, or did until the last run of the job `tidy`."""


Index("ix_tags_listed", Tag.slug, postgresql_where=text("is_listed"))


class ArticleTag(Base):
    """That an article has a tag."""

    __tablename__ = "article_tags"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    tag_id: Mapped[int] = mapped_column(ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    """Where it stood when the article's author named its tags."""
    name: Mapped[str | None] = mapped_column(String(50))
    """The author's spelling, which is shown until the tag is listed; None: the tag's name."""
    listed_at: Mapped[datetime | None]
    """The article's `published_at` while it is in circulation, kept by triggers: a tag's articles
    are read from one index in their order, however many there are."""


Index(
    "ix_article_tags_listed",
    ArticleTag.tag_id,
    ArticleTag.listed_at.desc(),
    ArticleTag.article_id.desc(),
)
