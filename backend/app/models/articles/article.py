"""Articles and their former slugs.

Database triggers set derived columns: `dated_at`, `search_vector` and `awaits_publication`
(migration 0003), `tag_names` and `tag_names_in_order` (0020). They also set `published` and a slug
for the previous release.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    FetchedValue,
    ForeignKey,
    Function,
    Index,
    SmallInteger,
    String,
    Text,
    and_,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.enums import CommentPolicy
from app.db.base import Base, PrimaryKey, TimestampMixin

if TYPE_CHECKING:
    from app.models.accounts.user import User


class Article(TimestampMixin, Base):
    __tablename__ = "articles"
    __table_args__ = (
        CheckConstraint("char_length(title) >= 1", name="title_not_empty"),
        CheckConstraint("char_length(content) >= 1", name="content_not_empty"),
        CheckConstraint(
            "comment_policy IN ('open', 'held', 'closed')", name="comment_policy_known"
        ),
    )

    id: Mapped[PrimaryKey]
    title: Mapped[str] = mapped_column(String(200))
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    """The public slug. For unpublished articles, see `services.articles.slugs`."""
    draft_slug: Mapped[str | None] = mapped_column(String(100), server_default=FetchedValue())
    """The slug that the author sees until the article becomes public."""
    content: Mapped[str] = mapped_column(Text)
    """Markdown source."""
    html: Mapped[str] = mapped_column(Text, server_default="")
    """`content` rendered and sanitised."""
    plain_text: Mapped[str] = mapped_column(Text, server_default="")
    """`content` without markup, for search and snippets."""
    toc: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    rendered_with: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    """The renderer's version for `html`, `plain_text`, `toc` and the counts; 0 before the first."""
    word_count: Mapped[int] = mapped_column(server_default=text("0"))
    reading_time: Mapped[int] = mapped_column(server_default=text("0"))
    """In minutes."""
    excerpt: Mapped[str] = mapped_column(String(500), server_default="")
    own_excerpt: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the author wrote the excerpt; otherwise it is derived from the content."""
    cover_image_url: Mapped[str | None] = mapped_column(String(2000))
    language: Mapped[str] = mapped_column(String(10), server_default="en")
    comment_policy: Mapped[CommentPolicy] = mapped_column(
        String(10), default=CommentPolicy.OPEN, server_default=CommentPolicy.OPEN.value
    )
    version: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    published: Mapped[bool] = mapped_column(server_default=false())
    """For the previous release, which does not use `published_at`; the trigger sets it."""
    published_at: Mapped[datetime | None]
    """When the article becomes public: in the future if scheduled, None for a draft."""
    awaits_publication: Mapped[bool] = mapped_column(server_default=false())
    """Whether the article is scheduled and the change feed has not announced it yet."""
    archived_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    """When it was moved to the trash."""
    dated_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    """Sort key of lists by date: `published_at`, or `created_at` for drafts."""
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    edited_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """The author of the current title and content; None for `author_id` or a deleted account."""
    edited_at: Mapped[datetime | None]
    imported: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True), deferred=True)
    """Fields of an imported record for which there is no column."""
    search_vector: Mapped[str | None] = mapped_column(TSVECTOR, deferred=True)
    tag_names: Mapped[list[str] | None] = mapped_column(
        ARRAY(String(50)), server_default=text("'{}'"), deferred=True
    )
    """The public names of the tags, sorted by slug; None if a tag is not listed."""
    tag_names_in_order: Mapped[list[str] | None] = mapped_column(
        ARRAY(String(50)), server_default=text("'{}'"), deferred=True
    )
    """The same in the author's order."""

    author: Mapped["User"] = relationship(
        back_populates="articles", lazy="raise", foreign_keys=author_id
    )


class FormerSlug(Base):
    """A former slug of an article that is or was public, which redirects to it."""

    __tablename__ = "former_slugs"

    slug: Mapped[str] = mapped_column(String(100), primary_key=True)
    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), index=True
    )


class DraftFormerSlug(Base):
    """A former slug of an imported article that was never public.

    Several articles may have the same one. A trigger (migration 0017) moves it to FormerSlug when
    its article becomes public.
    """

    __tablename__ = "draft_former_slugs"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    slug: Mapped[str] = mapped_column(String(100), primary_key=True)


PUBLISHED_OR_SCHEDULED: ColumnElement[bool] = and_(
    Article.published_at.is_not(None), Article.archived_at.is_(None), Article.deleted_at.is_(None)
)
"""The condition of the indexes of public articles by sort order; scheduled ones are included."""
Index(
    "ix_articles_public_newest",
    Article.dated_at.desc(),
    Article.id.desc(),
    postgresql_where=PUBLISHED_OR_SCHEDULED,
)
Index(
    "ix_articles_public_updated",
    Article.updated_at.desc(),
    Article.id.desc(),
    postgresql_where=PUBLISHED_OR_SCHEDULED,
)
Index(
    "ix_articles_public_title", Article.title, Article.id, postgresql_where=PUBLISHED_OR_SCHEDULED
)
Index(
    "ix_articles_drafts",
    Article.dated_at.desc(),
    Article.id.desc(),
    postgresql_where=text("published_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL"),
)
Index(
    "ix_articles_archived",
    Article.dated_at.desc(),
    Article.id.desc(),
    postgresql_where=text("archived_at IS NOT NULL AND deleted_at IS NULL"),
)
# For the previous release, which may still read during a rolling upgrade.
Index(
    "ix_articles_published_newest",
    Article.created_at.desc(),
    Article.id.desc(),
    postgresql_where=text("published"),
)
Index(
    "uq_articles_draft_slug",
    Article.draft_slug,
    Article.author_id,
    unique=True,
    postgresql_where=text("draft_slug IS NOT NULL"),
)
Index("ix_articles_author_newest", Article.author_id, Article.created_at.desc(), Article.id.desc())
Index("ix_articles_newest", Article.dated_at.desc(), Article.id.desc())
Index("ix_articles_author_dated", Article.author_id, Article.dated_at.desc(), Article.id.desc())
Index(
    "ix_articles_author_public",
    Article.author_id,
    Article.dated_at.desc(),
    Article.id.desc(),
    postgresql_where=PUBLISHED_OR_SCHEDULED,
)
Index(
    "ix_articles_author_drafts",
    Article.author_id,
    Article.dated_at.desc(),
    Article.id.desc(),
    postgresql_where=text("published_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL"),
)
Index("ix_articles_edited_by", Article.edited_by, postgresql_where=text("edited_by IS NOT NULL"))
Index("ix_articles_rendered_with", Article.rendered_with)
Index("ix_articles_trash", Article.deleted_at, postgresql_where=text("deleted_at IS NOT NULL"))
Index(
    "ix_articles_awaits_publication",
    Article.published_at,
    postgresql_where=text("awaits_publication"),
)
Index("ix_articles_search", Article.search_vector, postgresql_using="gin")
TITLE_WORDS: Function[Any] = func.article_title_words(Article.title)
"""The words of the title without stemming; `search_vector` contains stems."""
Index("ix_articles_title_words", TITLE_WORDS, postgresql_using="gin")
# For the previous release, which reads the languages in use from it.
Index("ix_articles_language", Article.language)
SEARCH_CONFIG: Function[Any] = func.article_search_config(Article.language)
"""The search configuration of the article's language: one of a few dozen."""
Index("ix_articles_public_config", SEARCH_CONFIG, postgresql_where=PUBLISHED_OR_SCHEDULED)
Index("ix_articles_config_author", SEARCH_CONFIG, Article.author_id)
