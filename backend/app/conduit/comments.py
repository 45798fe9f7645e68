"""Comments on articles, as flat lists."""

from typing import Any

from fastapi import status

from app.conduit import shapes
from app.conduit.dependencies import CommunityActor, CommunityViewer, DiscussedArticleId
from app.conduit.routing import OPTIONAL_AUTH, TOKEN_ERRORS, create_router, errors
from app.conduit.schemas import CommentResponse, CommentsResponse, Name, NewCommentRequest
from app.db.dependencies import ReadConnection, WriteSession
from app.schemas.community.comment import CommentCreate
from app.schemas.types import Id
from app.services.community.comments import reading, writing

router = create_router("Comments")


@router.get(
    "/articles/{slug}/comments",
    response_model=CommentsResponse,
    openapi_extra=OPTIONAL_AUTH,
    responses=errors(403, 404),
)
async def list_comments(
    connection: ReadConnection, viewer: CommunityViewer, slug: Name
) -> dict[str, Any]:
    """List the comments of an article, the newest first."""
    return shapes.comments(await reading.list_latest(connection, slug=slug, viewer=viewer))


@router.post(
    "/articles/{slug}/comments",
    response_model=CommentResponse,
    status_code=status.HTTP_201_CREATED,
    responses=errors(*TOKEN_ERRORS, 404),
)
async def create_comment(
    session: WriteSession,
    actor: CommunityActor,
    article_id: DiscussedArticleId,
    new: NewCommentRequest,
) -> dict[str, Any]:
    """Comment on an article."""
    row = await writing.create_comment_with_profile(
        session, article_id=article_id, new=CommentCreate(content=new.comment.body), author=actor
    )
    return shapes.comment(row)


@router.delete(
    "/articles/{slug}/comments/{id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(*TOKEN_ERRORS, 404),
)
async def delete_comment(
    session: WriteSession,
    actor: CommunityActor,
    article_id: DiscussedArticleId,
    id: Id,  # noqa: A002 - Conduit's name
) -> None:
    """Delete a comment of this article."""
    await writing.delete_comment_of_article(
        session, article_id=article_id, comment_id=id, actor=actor
    )
