"""Routes for revisions of articles."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Query

from app.auth.dependencies import ArticlesActor, RequiredArticlesViewer
from app.core.errors import (
    ArticleNotFound,
    ContentTooComplex,
    LimitReached,
    NotAuthorized,
    QuotaExceeded,
    RevisionNotFound,
    TooManyAtOnce,
)
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.parameters import ArticleId, IfMatch, Page, RevisionId
from app.routers.responses import create_router, errors
from app.schemas.articles.article import ArticleResponse
from app.schemas.articles.revision import RevisionDiff, RevisionResponse, RevisionSummary
from app.schemas.types import Id
from app.services.articles import revisions
from app.services.articles.revisions import RevisionRow
from app.services.articles.rows import ArticleRow

router = create_router(prefix="/articles/{article_id:article_id}/revisions", tag="revisions")

_AUTHOR_ERRORS = (NotAuthorized, ArticleNotFound)


@router.get("", response_model=list[RevisionSummary], responses=errors(*_AUTHOR_ERRORS))
async def list_revisions(
    reader: ReadConnection, user: RequiredArticlesViewer, article_id: ArticleId, page: Page
) -> Sequence[RevisionRow]:
    """List an article's earlier versions, newest first."""
    return await revisions.list_revisions(reader, article_id=article_id, page=page, actor=user)


@router.get(
    "/{revision_id}",
    response_model=RevisionResponse,
    responses=errors(*_AUTHOR_ERRORS, RevisionNotFound),
)
async def read_revision(
    reader: ReadConnection,
    user: RequiredArticlesViewer,
    article_id: ArticleId,
    revision_id: RevisionId,
) -> RevisionRow:
    """Read a revision with its text."""
    return await revisions.get_revision(
        reader, article_id=article_id, revision_id=revision_id, actor=user
    )


@router.get(
    "/{revision_id}/diff", responses=errors(*_AUTHOR_ERRORS, RevisionNotFound, TooManyAtOnce)
)
async def diff_revision(
    reader: ReadConnection,
    user: RequiredArticlesViewer,
    article_id: ArticleId,
    revision_id: RevisionId,
    against: Annotated[
        Id | Literal["current"], Query(description="Another revision, or `current` for the article")
    ] = "current",
) -> RevisionDiff:
    """Compare a revision with the current article, or with another revision."""
    return await revisions.diff_revision(
        reader, article_id=article_id, revision_id=revision_id, against=against, actor=user
    )


@router.post(
    "/{revision_id}/restore",
    response_model=ArticleResponse,
    responses=errors(
        *_AUTHOR_ERRORS,
        LimitReached,
        QuotaExceeded,
        RevisionNotFound,
        TooManyAtOnce,
        ContentTooComplex,
    ),
)
async def restore_revision(
    session: WriteSession,
    actor: ArticlesActor,
    article_id: ArticleId,
    revision_id: RevisionId,
    precondition: IfMatch,
) -> ArticleRow:
    """Restore a revision's title and content; the current ones become a revision."""
    return await revisions.restore_revision(
        session,
        article_id=article_id,
        revision_id=revision_id,
        actor=actor,
        precondition=precondition,
    )
