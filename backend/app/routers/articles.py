"""/articles: the blog itself."""

from collections.abc import Sequence

from fastapi import status

from app.auth.dependencies import ArticlesActor, ArticlesViewer
from app.core.errors import ArticleNotFound, EmailNotVerified, NotAuthorized
from app.core.routing import create_router
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.parameters import ArticleId, Page
from app.routers.responses import KNOWS_USER, NEEDS_USER, OPTIONAL_USER, TAKES_JSON, errors
from app.schemas.article import ArticleCreate, ArticleResponse, ArticleUpdate
from app.services import articles
from app.services.articles import ArticleRow

router = create_router(prefix="/articles", tag="articles")


@router.get(
    "",
    response_model=list[ArticleResponse],
    responses=errors(*KNOWS_USER),
    openapi_extra=OPTIONAL_USER,
)
async def list_articles(
    connection: ReadConnection, viewer: ArticlesViewer, page: Page
) -> Sequence[ArticleRow]:
    """List articles, newest first: published ones, and one's own drafts."""
    return await articles.list_articles(connection, page=page, viewer=viewer)


@router.get(
    "/{article_id}",
    response_model=ArticleResponse,
    responses=errors(*KNOWS_USER, ArticleNotFound),
    openapi_extra=OPTIONAL_USER,
)
async def read_article(
    connection: ReadConnection, viewer: ArticlesViewer, article_id: ArticleId
) -> ArticleRow:
    """Read an article; another's draft is not found."""
    return await articles.get_article(connection, article_id=article_id, viewer=viewer)


@router.post(
    "",
    response_model=ArticleResponse,
    status_code=status.HTTP_201_CREATED,
    responses=errors(*NEEDS_USER, EmailNotVerified, *TAKES_JSON),
)
async def create_article(
    session: WriteSession, actor: ArticlesActor, new: ArticleCreate
) -> ArticleRow:
    """Write an article, as a draft or published at once."""
    return await articles.create_article(session, new=new, author=actor)


@router.patch(
    "/{article_id}",
    response_model=ArticleResponse,
    responses=errors(*NEEDS_USER, NotAuthorized, EmailNotVerified, ArticleNotFound, *TAKES_JSON),
)
async def update_article(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId, changes: ArticleUpdate
) -> ArticleRow:
    """Change some of an article; another's only as an editor."""
    return await articles.update_article(
        session, article_id=article_id, changes=changes, actor=actor
    )


@router.delete(
    "/{article_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(*NEEDS_USER, NotAuthorized, ArticleNotFound),
)
async def delete_article(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId
) -> None:
    """Delete an article; another's only as an editor."""
    await articles.delete_article(session, article_id=article_id, actor=actor)
