"""What a read of articles selects, and which of them a reader may see."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.community import CommentPolicy
from app.models.article import Article
from app.models.favorite import ArticleCounts, Favorite
from app.models.tag import ArticleTag, Tag
from app.models.user import User
from app.schemas.article import FIELDS, Status
from app.services.viewing import VIEWER, follows, whether


class AuthorRow(NamedTuple):
    """An article's author, as anybody sees them."""

    id: int
    username: str
    name: str
    created_at: datetime


class ArticleRow(NamedTuple):
    """An article as a read selects it, its author beside it; the fields of ArticleResponse."""

    id: int
    title: str
    slug: str
    content: str
    html: str
    excerpt: str
    cover_image_url: str | None
    language: str
    tags: Sequence[str]
    toc: Sequence[Mapping[str, Any]]
    status: Status
    published: bool
    published_at: datetime | None
    word_count: int
    reading_time: int
    comment_policy: CommentPolicy
    version: int
    author_id: int
    created_at: datetime
    updated_at: datetime
    author: AuthorRow


NOW: ColumnElement[datetime] = bindparam("now", type_=DateTime(timezone=True))
"""A parameter of every statement here: the application's time, which tests can move."""

KEPT = Article.deleted_at.is_(None)
"""Not in the trash."""
UNARCHIVED = Article.archived_at.is_(None)
"""Not put away: what lists have unless they are asked for the archive."""
IN_CIRCULATION: ColumnElement[bool] = and_(Article.published_at.is_not(None), UNARCHIVED, KEPT)
"""The condition of the indexes for readers, word for word: published, or going to be."""
PUBLIC: ColumnElement[bool] = and_(IN_CIRCULATION, Article.dated_at <= NOW)
"""What every reader sees. `dated_at` is `published_at` here, and it is what the indexes are by."""
OWNS_SLUG: ColumnElement[bool] = or_(Article.draft_slug.is_(None), PUBLIC)
"""Readers see it at its slug, or did: nobody else gets that."""

status: ColumnElement[str] = case(
    (Article.archived_at.is_not(None), literal(Status.ARCHIVED.value)),
    (Article.published_at.is_(None), literal(Status.DRAFT.value)),
    (Article.published_at > NOW, literal(Status.SCHEDULED.value)),
    else_=literal(Status.PUBLISHED.value),
)
_own = aliased(ArticleTag)
# Looked up for hidden tags alone: all else is in the primary key's index.
_spelling = (
    select(_own.spelling)
    .where(_own.article_id == ArticleTag.article_id, _own.tag_id == ArticleTag.tag_id)
    .correlate(ArticleTag)
    .scalar_subquery()
)
_tag = (
    select(
        case((Tag.is_listed, Tag.name), else_=func.coalesce(_spelling, Tag.name)).label("name"),
        func.coalesce(Tag.wanted_slug, Tag.slug).label("slug"),
        Tag.key,
    )
    .where(Tag.id == ArticleTag.tag_id)
    .correlate(ArticleTag)
    .offset(0)  # else PostgreSQL would join all tags, for each article
    .lateral()
)
_tag_names = func.array(
    select(_tag.c.name)
    .select_from(ArticleTag)
    .join(_tag, true())
    .where(ArticleTag.article_id == Article.id)
    .order_by(_tag.c.slug, _tag.c.key)
    .correlate(Article)
    .scalar_subquery()
)
_tag_names_in_order = func.array(
    select(_tag.c.name)
    .select_from(ArticleTag)
    .join(_tag, true())
    .where(ArticleTag.article_id == Article.id)
    .order_by(ArticleTag.position, _tag.c.slug, _tag.c.key)
    .correlate(Article)
    .scalar_subquery()
)


def public_name(tag: Any) -> ColumnElement[str]:
    """How readers see a tag spelled; before it is listed, as the first article has it.

    `tag` has the columns of Tag.
    """
    first = (
        select(ArticleTag.spelling)
        .where(ArticleTag.tag_id == tag.id, ArticleTag.listed_at <= NOW)
        .order_by(ArticleTag.listed_at, ArticleTag.article_id)
        .limit(1)
    )
    hidden = func.coalesce(first.scalar_subquery(), tag.name)
    return case((tag.is_listed, tag.name), else_=hidden).label("name")


def _of_article(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    """One of an article's counts."""
    counted = select(column).where(ArticleCounts.article_id == Article.id).correlate(Article)
    return func.coalesce(counted.scalar_subquery(), 0)


SHOWN_SLUG: ColumnElement[str] = case((OWNS_SLUG, Article.slug), else_=Article.draft_slug)
_EXPRESSIONS: Mapping[str, ColumnElement[Any]] = {
    "slug": SHOWN_SLUG,
    "tags": _tag_names,
    "tags_in_order": _tag_names_in_order,
    "favorites_count": _of_article(ArticleCounts.favorites),
    "comments_count": _of_article(ArticleCounts.comments),
    "favorited": whether(Favorite.user_id == VIEWER, Favorite.article_id == Article.id),
    "follows_author": follows(Article.author_id),
    "author_bio": User.bio.expression,
    "author_image_url": User.image_url.expression,
    "status": status,
    "published": status == literal(Status.PUBLISHED.value),
}
_AUTHOR = tuple(getattr(User, field) for field in AuthorRow._fields)


def columns(fields: Sequence[str]) -> tuple[ColumnElement[Any], ...]:
    """The columns for these fields of an article, in their order; the author's come last."""
    own = tuple(
        _EXPRESSIONS[field].label(field) if field in _EXPRESSIONS else getattr(Article, field)
        for field in fields
        if field != "author"
    )
    return (*own, *_AUTHOR) if "author" in fields else own


def selected(fields: Sequence[str] = FIELDS) -> Select[Any]:
    """A select of these fields; joins the author where that is among them."""
    statement = select(*columns(fields)).select_from(Article)
    return statement.join(User, Article.author_id == User.id) if "author" in fields else statement


def article_row(row: Sequence[Any]) -> ArticleRow:
    """A row of `selected()` as it is read by attribute."""
    split = len(FIELDS) - 1
    return ArticleRow._make((*row[:split], AuthorRow._make(row[split:])))


def part(fields: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    """A row of `selected(fields)` as a mapping of those fields."""
    if "author" not in fields:
        return dict(zip(fields, row, strict=True))
    split = len(fields) - 1
    return {
        **dict(zip(fields[:split], row[:split], strict=True)),
        "author": AuthorRow._make(row[split:]),
    }


class Sight(Enum):
    """Which articles a reader may see."""

    PUBLISHED = auto()
    PUBLISHED_AND_OWN = auto()
    ALL = auto()


VISIBLE: Mapping[Sight, ColumnElement[bool]] = {
    Sight.PUBLISHED: PUBLIC,
    Sight.PUBLISHED_AND_OWN: and_(KEPT, or_(PUBLIC, Article.author_id == bindparam("viewer_id"))),
    Sight.ALL: KEPT,
}


def sight_of(viewer: Identity | None) -> tuple[Sight, dict[str, Any]]:
    """What `viewer` may see, and the parameters that statements with VISIBLE need."""
    now = clock.now()
    if viewer is None:
        return Sight.PUBLISHED, {"now": now}
    if may_on_any(viewer, Action.READ_DRAFT):
        return Sight.ALL, {"now": now}
    return Sight.PUBLISHED_AND_OWN, {"now": now, "viewer_id": viewer.id}
