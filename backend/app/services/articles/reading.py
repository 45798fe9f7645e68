"""One article, by its id or its slug."""

from functools import lru_cache
from typing import Any

from sqlalchemy import Select, String, and_, bindparam, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core.errors import ArticleMoved, ArticleNotFound
from app.db.reading import Reader
from app.models.article import Article, FormerSlug
from app.services.articles.rows import (
    OWNS_SLUG,
    PUBLIC,
    VISIBLE,
    ArticleRow,
    Sight,
    article_row,
    part,
    selected,
    sight_of,
)
from app.services.viewing import VIEWER

# Built once: to build a statement, and to find out that it is the one compiled before, takes longer
# than PostgreSQL takes to answer it.
_BY_ID = {
    sight: selected().where(Article.id == bindparam("article_id"), visible)
    for sight, visible in VISIBLE.items()
}
_SLUG = bindparam("slug", type_=String)
_NAMED = or_(
    and_(Article.slug == _SLUG, OWNS_SLUG), and_(Article.draft_slug == _SLUG, not_(OWNS_SLUG))
)
_PUBLIC_FIRST = PUBLIC.desc(), (Article.author_id == VIEWER).desc(), Article.id
"""Others may have a draft called like a public article, or like each other's."""
_BY_SLUG = {
    sight: selected().where(_NAMED, visible).order_by(*_PUBLIC_FIRST).limit(1)
    for sight, visible in VISIBLE.items()
} | {Sight.PUBLISHED: selected().where(Article.slug == _SLUG, PUBLIC)}
_BY_FORMER_SLUG = {
    sight: select(Article.slug)
    .join(FormerSlug, FormerSlug.article_id == Article.id)
    .where(FormerSlug.slug == _SLUG, OWNS_SLUG, visible)
    for sight, visible in VISIBLE.items()
}


@lru_cache
def _some_fields(sight: Sight, fields: tuple[str, ...], *, by_slug: bool) -> Select[Any]:
    visible = selected(fields).where(VISIBLE[sight])
    if not by_slug:
        return visible.where(Article.id == bindparam("article_id"))
    formerly = select(FormerSlug.article_id).where(FormerSlug.slug == _SLUG).scalar_subquery()
    if sight is Sight.PUBLISHED:
        present = select(Article.id).where(Article.slug == _SLUG, OWNS_SLUG).scalar_subquery()
        return visible.where(Article.id == func.coalesce(present, formerly))
    found = visible.where(or_(_NAMED, and_(Article.id == formerly, OWNS_SLUG)))
    return found.order_by(_NAMED.desc(), *_PUBLIC_FIRST).limit(1)


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
    named = {**who, "slug": slug, "viewer_id": viewer.id if viewer else None}
    row = (await connection.execute(_BY_SLUG[sight], named)).one_or_none()
    if row is not None:
        return article_row(row)
    present = await connection.scalar(_BY_FORMER_SLUG[sight], {**who, "slug": slug})
    if present is None:
        raise ArticleNotFound
    raise ArticleMoved(slug=present, location=f"/articles/by-slug/{present}")
