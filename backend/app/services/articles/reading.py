"""One article, by its id or its slug."""

from sqlalchemy import bindparam, select

from app.auth.identity import Identity
from app.core.errors import ArticleMoved, ArticleNotFound
from app.db.reading import Reader
from app.models.article import Article, FormerSlug
from app.services.articles.rows import VISIBLE, ArticleRow, article_row, selected, sight_of

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


async def get_article(
    connection: Reader, *, article_id: int, viewer: Identity | None
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
