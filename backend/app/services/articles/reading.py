"""Read one article by id or slug."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Select,
    String,
    and_,
    any_,
    bindparam,
    func,
    not_,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core.errors import ArticleMoved, ArticleNotFound
from app.db.reading import Reader
from app.db.writing import fetch
from app.models.articles.article import Article, FormerSlug
from app.schemas.articles.article import ArticleResponse
from app.services.articles.rows import (
    ARTICLE,
    DISPLAYED_SLUG,
    OWNS_SLUG,
    PUBLIC,
    VISIBLE,
    Visibility,
    article_fields,
    select_articles,
    visibility_of,
)
from app.services.pages.viewing import VIEWER

# Statements are built once. Building one and looking it up in the compiled cache takes longer than
# PostgreSQL takes to run it.
_BY_ID = {
    visibility: select_articles().where(Article.id == bindparam("article_id"), visible)
    for visibility, visible in VISIBLE.items()
}
_SLUG = bindparam("slug", type_=String)
_HAS_SLUG = or_(
    and_(Article.slug == _SLUG, OWNS_SLUG), and_(Article.draft_slug == _SLUG, not_(OWNS_SLUG))
)
_PUBLIC_FIRST = PUBLIC.desc(), (Article.author_id == VIEWER).desc(), Article.id
"""Drafts may share a slug with a public article or with drafts of other authors."""
_BY_SLUG = {
    visibility: select_articles().where(_HAS_SLUG, visible).order_by(*_PUBLIC_FIRST).limit(1)
    for visibility, visible in VISIBLE.items()
} | {Visibility.PUBLISHED: select_articles().where(Article.slug == _SLUG, PUBLIC)}
_BY_FORMER_SLUG = {
    visibility: select(Article.slug)
    .join(FormerSlug, FormerSlug.article_id == Article.id)
    .where(FormerSlug.slug == _SLUG, OWNS_SLUG, visible)
    for visibility, visible in VISIBLE.items()
}
_TITLES = {
    visibility: select(Article.id, Article.title, DISPLAYED_SLUG.label("slug"))
    .where(Article.id == any_(bindparam("ids", type_=ARRAY(BigInteger))), visible)
    .order_by(Article.id)
    for visibility, visible in VISIBLE.items()
}


@lru_cache
def _select_fields(
    visibility: Visibility, fields: tuple[str, ...], *, by_slug: bool
) -> Select[Any]:
    visible = select_articles(fields).where(VISIBLE[visibility])
    if not by_slug:
        return visible.where(Article.id == bindparam("article_id"))
    by_former_slug = select(FormerSlug.article_id).where(FormerSlug.slug == _SLUG).scalar_subquery()
    if visibility is Visibility.PUBLISHED:
        current = select(Article.id).where(Article.slug == _SLUG, OWNS_SLUG).scalar_subquery()
        return visible.where(Article.id == func.coalesce(current, by_former_slug))
    found = visible.where(or_(_HAS_SLUG, and_(Article.id == by_former_slug, OWNS_SLUG)))
    return found.order_by(_HAS_SLUG.desc(), *_PUBLIC_FIRST).limit(1)


async def get_fields(
    reader: Reader | AsyncSession,
    *,
    viewer: Identity | None,
    fields: tuple[str, ...],
    article_id: int | None = None,
    slug: str | None = None,
) -> dict[str, Any]:
    """Return these fields of one article, found by id, slug or former slug.

    Raises ArticleNotFound if it does not exist or is another user's draft.
    """
    visibility, params = visibility_of(viewer)
    statement = _select_fields(visibility, fields, by_slug=article_id is None)
    key = {"slug": slug} if article_id is None else {"article_id": article_id}
    parameters = {**params, **key, "viewer_id": viewer.id if viewer else None}
    row = (await fetch(reader, statement, parameters)).one_or_none()
    if row is None:
        raise ArticleNotFound
    return article_fields(fields).read(row)


async def get_article_id_by_slug(
    reader: Reader | AsyncSession, *, slug: str, viewer: Identity | None
) -> int:
    """Return the id of the article with this slug or former slug. Raises ArticleNotFound."""
    found = await get_fields(reader, slug=slug, viewer=viewer, fields=("id",))
    article_id: int = found["id"]
    return article_id


async def get_article(
    reader: Reader | AsyncSession, *, article_id: int, viewer: Identity | None
) -> ArticleResponse:
    """Return one article.

    Raises ArticleNotFound if it does not exist or is another user's draft.
    """
    visibility, params = visibility_of(viewer)
    found = await reader.execute(_BY_ID[visibility], {**params, "article_id": article_id})
    row = found.one_or_none()
    if row is None:
        raise ArticleNotFound
    return ARTICLE.read(row)


class ArticleTitle(NamedTuple):
    """What a link to an article needs."""

    id: int
    title: str
    slug: str


async def read_titles(
    reader: Reader, *, article_ids: Collection[int], viewer: Identity | None
) -> dict[int, ArticleTitle]:
    """Return the titles of those of the articles that `viewer` may see, by id."""
    if not article_ids:
        return {}
    visibility, params = visibility_of(viewer)
    rows = await reader.execute(_TITLES[visibility], {**params, "ids": list(article_ids)})
    return {row.id: ArticleTitle(*row) for row in rows}


async def get_article_by_slug(
    reader: Reader, *, slug: str, viewer: Identity | None
) -> ArticleResponse:
    """Return one article. Raises ArticleMoved for a former slug, ArticleNotFound."""
    visibility, params = visibility_of(viewer)
    key = {**params, "slug": slug, "viewer_id": viewer.id if viewer else None}
    row = (await reader.execute(_BY_SLUG[visibility], key)).one_or_none()
    if row is not None:
        return ARTICLE.read(row)
    current = await reader.scalar(_BY_FORMER_SLUG[visibility], {**params, "slug": slug})
    if current is None:
        raise ArticleNotFound
    raise ArticleMoved(slug=current)
