"""One article, by its id or its slug."""

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core.errors import ArticleMoved, ArticleNotFound
from app.db.reading import Reader
from app.models.article import Article, FormerSlug
from app.services.articles.rows import (
    VISIBLE,
    ArticleRow,
    Sight,
    article_row,
    part,
    selected,
    sight_of,
)

# Built once: to build a statement, and to find out that it is the one compiled before, takes longer
# than PostgreSQL takes to answer it.
_BY_ID = {
    sight: selected().where(Article.id == bindparam("article_id"), visible)
    for sight, visible in VISIBLE.items()
}
_BY_SLUG = {
    sight: selected().where(Article.slug == bindparam("slug"), visible)
    for sight, visible in VISIBLE.items()
}
_BY_FORMER_SLUG = {
    sight: select(Article.slug)
    .join(FormerSlug, FormerSlug.article_id == Article.id)
    .where(FormerSlug.slug == bindparam("slug"), visible)
    for sight, visible in VISIBLE.items()
}


@lru_cache
def _some_fields(sight: Sight, fields: tuple[str, ...], *, by_slug: bool) -> Select[Any]:
    if not by_slug:
        is_it: ColumnElement[bool] = Article.id == bindparam("article_id")
    else:
        former = select(FormerSlug.article_id).where(FormerSlug.slug == bindparam("slug"))
        present = select(Article.id).where(Article.slug == bindparam("slug"))
        is_it = Article.id == func.coalesce(present.scalar_subquery(), former.scalar_subquery())
    return selected(fields).where(is_it, VISIBLE[sight])


async def get_fields(
    connection: Reader | AsyncSession,
    *,
    viewer: Identity | None,
    fields: tuple[str, ...],
    article_id: int | None = None,
    slug: str | None = None,
) -> dict[str, Any]:
    """These fields of one article, named by its id or by a slug, its former ones included.

    Raises ArticleNotFound where it is absent or another's draft.
    """
    sight, who = sight_of(viewer)
    statement = _some_fields(sight, fields, by_slug=article_id is None)
    named = {"slug": slug} if article_id is None else {"article_id": article_id}
    parameters = {**who, **named, "viewer_id": viewer.id if viewer else None}
    row = (await connection.execute(statement, parameters)).one_or_none()
    if row is None:
        raise ArticleNotFound
    return part(fields, row)


async def id_of_slug(
    connection: Reader | AsyncSession, *, slug: str, viewer: Identity | None
) -> int:
    """The id of the article that has this slug, or had it before. Raises ArticleNotFound."""
    found = await get_fields(connection, slug=slug, viewer=viewer, fields=("id",))
    article_id: int = found["id"]
    return article_id


async def get_article(
    connection: Reader | AsyncSession, *, article_id: int, viewer: Identity | None
) -> ArticleRow:
    """One article. Raises ArticleNotFound where it is absent or another's draft."""
    sight, who = sight_of(viewer)
    found = await connection.execute(_BY_ID[sight], {**who, "article_id": article_id})
    row = found.one_or_none()
    if row is None:
        raise ArticleNotFound
    return article_row(row)


async def get_article_by_slug(
    connection: Reader, *, slug: str, viewer: Identity | None
) -> ArticleRow:
    """One article. Raises ArticleMoved where it has another slug now, ArticleNotFound."""
    sight, who = sight_of(viewer)
    row = (await connection.execute(_BY_SLUG[sight], {**who, "slug": slug})).one_or_none()
    if row is not None:
        return article_row(row)
    present = await connection.scalar(_BY_FORMER_SLUG[sight], {**who, "slug": slug})
    if present is None:
        raise ArticleNotFound
    raise ArticleMoved(slug=present, location=f"/articles/by-slug/{present}")
