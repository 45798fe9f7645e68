"""Routes for the trash: deleted articles, kept for 30 days."""

from collections.abc import Sequence

from fastapi import status

from app.auth.dependencies import ArticlesActor, RequiredArticlesViewer
from app.core.errors import ArticleNotFound, EmailNotVerified, LimitReached, QuotaExceeded
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.parameters import ArticleId, Page
from app.routers.responses import create_router, errors
from app.schemas.articles.article import ArticleResponse
from app.schemas.articles.trash import TrashedArticle
from app.services.articles import trash, writing
from app.services.articles.rows import ArticleRow
from app.services.articles.trash import TrashedRow

router = create_router(prefix="", tag="trash")


@router.get("/trash", response_model=list[TrashedArticle])
async def list_trash(
    reader: ReadConnection, user: RequiredArticlesViewer, page: Page
) -> Sequence[TrashedRow]:
    """List the user's deleted articles, last deleted first; editors get all."""
    return await trash.list_trash(reader, page=page, actor=user)


@router.post(
    "/articles/{article_id:article_id}/restore",
    response_model=ArticleResponse,
    responses=errors(LimitReached, QuotaExceeded, EmailNotVerified, ArticleNotFound),
)
async def restore_article(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId
) -> ArticleRow:
    """Restore an article from the trash with its earlier status."""
    return await writing.restore_article(session, article_id=article_id, actor=actor)


@router.delete(
    "/trash/{article_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(LimitReached, ArticleNotFound),
)
async def delete_for_good(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId
) -> None:
    """Permanently delete an article that is in the trash."""
    await trash.delete_for_good(session, article_id=article_id, actor=actor)
