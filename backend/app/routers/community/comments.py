"""Routes for comments on articles and their moderation."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Response, status

from app.auth.dependencies import CommunityActor, CommunityViewer, RequiredCommunityViewer
from app.auth.identity import Identity
from app.core.errors import (
    ArticleNotFound,
    CommentNotFound,
    CommentsClosed,
    ContentTooComplex,
    EditWindowOver,
    LimitReached,
    NotAuthorized,
    ThreadLocked,
)
from app.db.dependencies import ReadConnection, WriteSession
from app.http.headers import described
from app.routers.idempotency import idempotent
from app.routers.paging import Paging
from app.routers.parameters import ArticleId, CommentId, CursorPage, IfMatch
from app.routers.responses import create_router, errors
from app.schemas.community.comment import (
    CommentCreate,
    CommentModeration,
    CommentResponse,
    CommentUpdate,
    ModerationQuery,
    ThreadQuery,
    ThreadResponse,
)
from app.services.community.comments import reading, writing

router = create_router(prefix="", tag="comments")


@router.get(
    "/articles/{article_id:article_id}/comments",
    response_model=list[ThreadResponse],
    responses=errors(ArticleNotFound),
)
async def list_comments(
    reader: ReadConnection,
    viewer: CommunityViewer,
    article_id: ArticleId,
    query: Annotated[ThreadQuery, Query()],
    paging: Paging,
) -> Sequence[ThreadResponse]:
    """List an article's threads with their first replies."""
    return paging.describe(
        await reading.list_threads(reader, article_id=article_id, query=query, viewer=viewer)
    )


async def _read_created(session: WriteSession, comment_id: int, actor: Identity) -> CommentResponse:
    return await reading.get_comment(session, comment_id=comment_id, viewer=actor)


@router.post(
    "/articles/{article_id:article_id}/comments",
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"headers": described("Location")},
        **errors(
            LimitReached,
            CommentsClosed,
            ThreadLocked,
            ArticleNotFound,
            CommentNotFound,
            ContentTooComplex,
        ),
    },
    dependencies=[idempotent(CommunityActor, read=_read_created)],
)
async def create_comment(
    session: WriteSession,
    actor: CommunityActor,
    article_id: ArticleId,
    new: CommentCreate,
    response: Response,
) -> CommentResponse:
    """Comment on an article, or reply to a comment."""
    row = await writing.create_comment(session, article_id=article_id, new=new, author=actor)
    response.headers["Location"] = f"/comments/{row.id}"
    return row


@router.get("/comments", response_model=list[CommentResponse])
async def list_to_moderate(
    reader: ReadConnection,
    user: RequiredCommunityViewer,
    query: Annotated[ModerationQuery, Query()],
    paging: Paging,
) -> Sequence[CommentResponse]:
    """List pending or hidden comments: on the user's own articles, or on all as an editor."""
    page = await reading.list_to_moderate(reader, query=query, user=user)
    return paging.describe(page)


@router.get("/comments/{comment_id}", responses=errors(CommentNotFound))
async def read_comment(
    reader: ReadConnection, viewer: CommunityViewer, comment_id: CommentId
) -> CommentResponse:
    """Read a comment."""
    return await reading.get_comment(reader, comment_id=comment_id, viewer=viewer)


@router.get(
    "/comments/{comment_id}/replies",
    response_model=list[CommentResponse],
    responses=errors(CommentNotFound),
)
async def list_replies(
    reader: ReadConnection,
    viewer: CommunityViewer,
    comment_id: CommentId,
    query: CursorPage,
    paging: Paging,
) -> Sequence[CommentResponse]:
    """List all replies in a thread, oldest first."""
    return paging.describe(
        await reading.list_replies(reader, comment_id=comment_id, query=query, viewer=viewer)
    )


@router.patch(
    "/comments/{comment_id}",
    responses=errors(
        LimitReached, NotAuthorized, EditWindowOver, CommentNotFound, ContentTooComplex
    ),
)
async def update_comment(
    session: WriteSession,
    actor: CommunityActor,
    comment_id: CommentId,
    changes: CommentUpdate,
    precondition: IfMatch,
) -> CommentResponse:
    """Change the user's own comment within 15 minutes."""
    return await writing.update_comment(
        session, comment_id=comment_id, changes=changes, actor=actor, precondition=precondition
    )


@router.delete(
    "/comments/{comment_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(LimitReached, NotAuthorized, CommentNotFound),
)
async def delete_comment(
    session: WriteSession, actor: CommunityActor, comment_id: CommentId, precondition: IfMatch
) -> None:
    """Delete a comment, as its author, the article's author or an editor; replies stay."""
    await writing.delete_comment(
        session, comment_id=comment_id, actor=actor, precondition=precondition
    )


@router.patch(
    "/comments/{comment_id}/moderation",
    responses=errors(LimitReached, NotAuthorized, CommentNotFound),
)
async def moderate_comment(
    session: WriteSession,
    actor: CommunityActor,
    comment_id: CommentId,
    changes: CommentModeration,
    precondition: IfMatch,
) -> CommentResponse:
    """Approve, hide or show a comment, or lock its thread, as the article's author or an editor."""
    return await writing.moderate_comment(
        session, comment_id=comment_id, changes=changes, actor=actor, precondition=precondition
    )
