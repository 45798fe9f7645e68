"""Routes for preview links, and for the articles that they show."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Path, Response, status

from app.auth.dependencies import ArticlesActor, RequiredArticlesViewer
from app.core.errors import (
    ArticleNotFound,
    LimitReached,
    NotAuthorized,
    PreviewLinkNotFound,
    PreviewNotFound,
    TooManyPreviewLinks,
)
from app.db.dependencies import ReadConnection, WriteSession
from app.http.routing import no_store
from app.routers.idempotency import idempotent
from app.routers.parameters import ArticleId, Page, PreviewLinkId
from app.routers.responses import create_router, errors
from app.schemas.articles.article import ArticleResponse
from app.schemas.articles.preview import PreviewLinkCreate, PreviewLinkCreated, PreviewLinkResponse
from app.services.articles import previews
from app.services.articles.previews import PreviewLinkRow
from app.services.articles.rows import ArticleRow

router = create_router(prefix="", tag="previews")

_LINKS = "/articles/{article_id:article_id}/preview-links"
_AUTHOR_ERRORS = (NotAuthorized, ArticleNotFound)


async def no_index(response: Response) -> None:
    """Keep the response out of search engines."""
    response.headers["X-Robots-Tag"] = "noindex"


@router.post(
    _LINKS,
    status_code=status.HTTP_201_CREATED,
    responses=errors(*_AUTHOR_ERRORS, LimitReached, TooManyPreviewLinks),
    dependencies=[Depends(no_store), idempotent(ArticlesActor)],
)
async def create_preview_link(
    session: WriteSession,
    actor: ArticlesActor,
    article_id: ArticleId,
    new: PreviewLinkCreate | None = None,
) -> PreviewLinkCreated:
    """Create a link that shows an article, draft or not, to anyone who has the link."""
    return await previews.create_preview_link(
        session, article_id=article_id, new=new or PreviewLinkCreate(), actor=actor
    )


@router.get(_LINKS, response_model=list[PreviewLinkResponse], responses=errors(*_AUTHOR_ERRORS))
async def list_preview_links(
    reader: ReadConnection, user: RequiredArticlesViewer, article_id: ArticleId, page: Page
) -> Sequence[PreviewLinkRow]:
    """List an article's preview links, newest first."""
    return await previews.list_preview_links(reader, article_id=article_id, page=page, actor=user)


@router.delete(
    _LINKS + "/{link_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(*_AUTHOR_ERRORS, LimitReached, PreviewLinkNotFound),
)
async def delete_preview_link(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId, link_id: PreviewLinkId
) -> None:
    """Revoke a preview link."""
    await previews.delete_preview_link(session, article_id=article_id, link_id=link_id, actor=actor)


@router.get(
    "/previews/{token}",
    response_model=ArticleResponse,
    responses=errors(PreviewNotFound),
    dependencies=[Depends(no_store), Depends(no_index)],
)
async def read_preview(
    reader: ReadConnection,
    token: Annotated[
        str, Path(description="A preview link's token", max_length=100, examples=["prv_…"])
    ],
) -> ArticleRow:
    """Read the current state of the article that a preview link shows."""
    return await previews.get_preview(reader, token=token)
