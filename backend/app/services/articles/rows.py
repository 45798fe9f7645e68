"""Columns that reads of articles select, and the visibility of articles."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    ColumnExpressionArgument,
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
from app.db.selection import Selection, fields_of
from app.models.accounts.user import User
from app.models.articles.article import PUBLISHED_OR_SCHEDULED, Article
from app.models.articles.tag import ArticleTag, Tag
from app.models.community.favorite import ArticleCounts, Favorite
from app.schemas.accounts.user import UserPublic
from app.schemas.articles.article import FIELDS, ArticleResponse, Status
from app.services.pages.viewing import VIEWER, follows, row_exists

NOW: ColumnElement[datetime] = bindparam("now", type_=DateTime(timezone=True))
"""Bound parameter for the current time, from `core.clock`."""

NOT_DELETED = Article.deleted_at.is_(None)
"""Not in the trash."""
NOT_ARCHIVED = Article.archived_at.is_(None)
"""Lists exclude archived articles unless they filter by that status."""
PUBLIC: ColumnElement[bool] = and_(PUBLISHED_OR_SCHEDULED, Article.dated_at <= NOW)
"""Visible to everyone. `dated_at` equals `published_at` here, and the indexes use it."""
OWNS_SLUG: ColumnElement[bool] = or_(Article.draft_slug.is_(None), PUBLIC)
"""The slug is or was public: no other article may get it."""

status: ColumnElement[str] = case(
    (Article.archived_at.is_not(None), literal(Status.ARCHIVED.value)),
    (Article.published_at.is_(None), literal(Status.DRAFT.value)),
    (Article.published_at > NOW, literal(Status.SCHEDULED.value)),
    else_=literal(Status.PUBLISHED.value),
)
_own = aliased(ArticleTag)
# Evaluated for unlisted tags only. All other columns come from the primary key's index.
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
        Tag.slug.label("address"),
        Tag.key,
    )
    .where(Tag.id == ArticleTag.tag_id)
    .correlate(ArticleTag)
    .offset(0)  # prevents a join with the whole table of tags
    .lateral()
)


def _tags_of_article(column: ColumnElement[str], *order: ColumnExpressionArgument[Any]) -> Any:
    """Return an array of a column of the article's tags, sorted by `order`, then by slug."""
    return func.array(
        select(column)
        .select_from(ArticleTag)
        .join(_tag, true())
        .where(ArticleTag.article_id == Article.id)
        .order_by(*order, _tag.c.slug, _tag.c.key)
        .correlate(Article)
        .scalar_subquery()
    )


# The tags themselves are read only if one of them is unlisted.
_tag_names = func.coalesce(Article.tag_names, _tags_of_article(_tag.c.name))
_tag_slugs = _tags_of_article(_tag.c.address)
_tag_names_in_order = func.coalesce(
    Article.tag_names_in_order, _tags_of_article(_tag.c.name, ArticleTag.position)
)


def public_name(tag: Any) -> ColumnElement[str]:
    """Return a tag's public name: for an unlisted tag, the spelling of its first public article.

    `tag` has the columns of Tag.
    """
    first_spelling = (
        select(ArticleTag.spelling)
        .where(ArticleTag.tag_id == tag.id, ArticleTag.listed_at <= NOW)
        .order_by(ArticleTag.listed_at, ArticleTag.article_id)
        .limit(1)
    )
    unlisted_name = func.coalesce(first_spelling.scalar_subquery(), tag.name)
    return case((tag.is_listed, tag.name), else_=unlisted_name).label("name")


def _count_column(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    """Return a column of ArticleCounts for the article, or 0 if it has no row."""
    counted = select(column).where(ArticleCounts.article_id == Article.id).correlate(Article)
    return func.coalesce(counted.scalar_subquery(), 0)


DISPLAYED_SLUG: ColumnElement[str] = case((OWNS_SLUG, Article.slug), else_=Article.draft_slug)
AUTHOR = fields_of(UserPublic, User)
"""The fields of an author. A statement that selects them joins User."""


def public_view(user: Identity) -> UserPublic:
    """Return a user as the author of an article or a comment."""
    return UserPublic(**{field: getattr(user, field) for field in AUTHOR})


ARTICLE_FIELDS: Mapping[str, Any] = {
    **fields_of(
        ArticleResponse,
        Article,
        slug=DISPLAYED_SLUG,
        tags=_tag_names,
        status=status,
        published=status == literal(Status.PUBLISHED.value),
        author=AUTHOR,
    ),
    "tags_in_order": _tag_names_in_order,
    "own_excerpt": Article.own_excerpt,
    "tag_slugs": _tag_slugs,
    "dated_at": Article.dated_at,
    "favorites_count": _count_column(ArticleCounts.favorites),
    "comments_count": _count_column(ArticleCounts.comments),
    "favorited": row_exists(Favorite.user_id == VIEWER, Favorite.article_id == Article.id),
    "follows_author": follows(Article.author_id),
    "author_username": User.username,
    "author_bio": User.bio,
    "author_image_url": User.image_url,
}
"""The columns of all fields that a read of articles may select."""
_AUTHOR_FIELDS = {"author", "author_username", "author_bio", "author_image_url"}
ARTICLE = Selection.of(ArticleResponse, Article, **ARTICLE_FIELDS)


@lru_cache(maxsize=512)
def article_fields(fields: tuple[str, ...]) -> Selection[dict[str, Any]]:
    """Return the selection of these fields, read as a mapping."""
    return Selection(dict, {field: ARTICLE_FIELDS[field] for field in fields})


def select_articles(fields: tuple[str, ...] = FIELDS) -> Select[Any]:
    """Select these fields; join the author if one of them needs it."""
    statement = select(*article_fields(fields).columns).select_from(Article)
    if _AUTHOR_FIELDS.isdisjoint(fields):
        return statement
    return statement.join(User, Article.author_id == User.id)


class Visibility(Enum):
    """Which articles a viewer may see."""

    PUBLISHED = auto()
    PUBLISHED_AND_OWN = auto()
    ALL = auto()


VISIBLE: Mapping[Visibility, ColumnElement[bool]] = {
    Visibility.PUBLISHED: PUBLIC,
    Visibility.PUBLISHED_AND_OWN: and_(
        NOT_DELETED, or_(PUBLIC, Article.author_id == bindparam("viewer_id"))
    ),
    Visibility.ALL: NOT_DELETED,
}


def visibility_of(viewer: Identity | None) -> tuple[Visibility, dict[str, Any]]:
    """Return the viewer's visibility, and the parameters of statements with VISIBLE."""
    now = clock.now()
    if viewer is None:
        return Visibility.PUBLISHED, {"now": now}
    if may_on_any(viewer, Action.READ_DRAFT):
        return Visibility.ALL, {"now": now}
    return Visibility.PUBLISHED_AND_OWN, {"now": now, "viewer_id": viewer.id}
