"""/trash: deleted articles, for thirty days."""

from collections.abc import Sequence

from fastapi import status

from app.auth.dependencies import ArticlesActor, RequiredArticlesViewer
from app.core.errors import ArticleNotFound, EmailNotVerified
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.parameters import ArticleId, Page
from app.routers.responses import LIMITED, NEEDS_USER, STORES, create_router, errors
from app.schemas.article import ArticleResponse
from app.schemas.trash import TrashedArticle
from app.services import trash
from app.services.articles import writing
from app.services.articles.rows import ArticleRow
from app.services.trash import TrashedRow

router = create_router(prefix="", tag="trash")


@router.get("/trash", response_model=list[TrashedArticle], responses=errors(*NEEDS_USER))
async def list_trash(
    connection: ReadConnection, user: RequiredArticlesViewer, page: Page
) -> Sequence[TrashedRow]:
    """List one's deleted articles, the latest first; as an editor, everybody's."""
    return await trash.list_trash(connection, page=page, actor=user)


@router.post(
    "/articles/{article_id:article_id}/restore",
    response_model=ArticleResponse,
    responses=errors(*NEEDS_USER, *STORES, EmailNotVerified, ArticleNotFound),
)
async def restore_article(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId
) -> ArticleRow:
    """Take an article out of the trash, as it was: published again where it was published."""
    return await writing.restore_article(session, article_id=article_id, actor=actor)


@router.delete(
    "/trash/{article_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(*NEEDS_USER, *LIMITED, ArticleNotFound),
)
async def delete_for_good(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId
) -> None:
    """Delete an article for good that is in the trash."""
    await trash.delete_for_good(session, article_id=article_id, actor=actor)
