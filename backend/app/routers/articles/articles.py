"""Routes under /articles."""

from typing import Annotated

from fastapi import Query, Request, Response, status

from app.auth.dependencies import ArticlesActor, ArticlesViewer
from app.auth.identity import Identity
from app.core.errors import (
    ArticleMoved,
    ArticleNotFound,
    EmailNotVerified,
    LimitReached,
    NotAuthorized,
    QuotaExceeded,
    SlugTaken,
    TooManyAtOnce,
)
from app.db.dependencies import ReadConnection, WriteSession
from app.http.headers import described
from app.http.json import to_json
from app.http.negotiation import markdown_response, negotiated, prefers_markdown
from app.routers.idempotency import idempotent
from app.routers.paging import Paging
from app.routers.parameters import ArticleId, ArticleSlug, IfMatch
from app.routers.responses import create_router, errors
from app.schemas.articles.article import (
    FIELDS,
    ArticleCreate,
    ArticleList,
    ArticleQuery,
    ArticleResponse,
    ArticleUpdate,
)
from app.services.articles import documents, listing, reading, writing

router = create_router(prefix="/articles", tag="articles")


@router.get("", response_model=ArticleList)
@negotiated
async def list_articles(
    request: Request,
    reader: ReadConnection,
    viewer: ArticlesViewer,
    query: Annotated[ArticleQuery, Query()],
    paging: Paging,
) -> bytes | Response:
    """List articles, newest first: published articles and the user's own drafts.

    With `Accept: text/markdown`, the response is a Markdown document with links.
    """
    if prefers_markdown(request):
        listed = await listing.list_articles(
            reader, query=query, viewer=viewer, fields=documents.LISTED_FIELDS
        )
        return paging.as_markdown(listed)
    listed = await listing.list_articles(reader, query=query, viewer=viewer)
    return to_json(paging.describe(listed))


@router.get(
    "/by-slug/{slug}",
    response_model=ArticleResponse,
    responses=errors(ArticleMoved, ArticleNotFound),
)
@negotiated
async def read_article_by_slug(
    request: Request, reader: ReadConnection, viewer: ArticlesViewer, slug: ArticleSlug
) -> ArticleResponse | Response:
    """Read an article by its slug; a former slug redirects to the current one.

    With `Accept: text/markdown`, the response is a Markdown document.
    """
    article = await reading.get_article_by_slug(reader, slug=slug, viewer=viewer)
    if prefers_markdown(request):
        return markdown_response(
            await documents.read_document(reader, article_id=article.id, viewer=viewer)
        )
    return article


@router.get(
    "/{article_id:article_id}",
    response_model=ArticleResponse,
    responses=errors(ArticleNotFound),
)
@negotiated
async def read_article(
    request: Request, reader: ReadConnection, viewer: ArticlesViewer, article_id: ArticleId
) -> bytes | Response:
    """Read an article; drafts of other users are hidden.

    With `Accept: text/markdown`, the response is a Markdown document.
    """
    if prefers_markdown(request):
        return markdown_response(
            await documents.read_document(reader, article_id=article_id, viewer=viewer)
        )
    return to_json(
        await reading.get_fields(reader, article_id=article_id, viewer=viewer, fields=FIELDS)
    )


async def _read_created(session: WriteSession, article_id: int, actor: Identity) -> ArticleResponse:
    return await reading.get_article(session, article_id=article_id, viewer=actor)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"headers": described("Location")},
        **errors(EmailNotVerified, SlugTaken, TooManyAtOnce, LimitReached, QuotaExceeded),
    },
    dependencies=[idempotent(ArticlesActor, read=_read_created)],
)
async def create_article(
    session: WriteSession, actor: ArticlesActor, new: ArticleCreate, response: Response
) -> ArticleResponse:
    """Create an article: a draft, scheduled or published."""
    row = await writing.create_article(session, new=new, author=actor)
    response.headers["Location"] = f"/articles/{row.id}"
    return row


@router.patch(
    "/{article_id:article_id}",
    responses=errors(
        NotAuthorized,
        EmailNotVerified,
        ArticleNotFound,
        SlugTaken,
        TooManyAtOnce,
        LimitReached,
        QuotaExceeded,
    ),
)
async def update_article(
    session: WriteSession,
    actor: ArticlesActor,
    article_id: ArticleId,
    changes: ArticleUpdate,
    precondition: IfMatch,
) -> ArticleResponse:
    """Change some fields of an article; other users' articles require an editor."""
    return await writing.update_article(
        session, article_id=article_id, changes=changes, actor=actor, precondition=precondition
    )


@router.delete(
    "/{article_id:article_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(NotAuthorized, ArticleNotFound, LimitReached),
)
async def delete_article(
    session: WriteSession, actor: ArticlesActor, article_id: ArticleId, precondition: IfMatch
) -> None:
    """Move an article to the trash for 30 days; other users' articles require an editor."""
    await writing.delete_article(
        session, article_id=article_id, actor=actor, precondition=precondition
    )
