"""Comments on articles, as flat lists."""

from typing import Any

from app.conduit import shapes
from app.conduit.dependencies import CommunityActor, CommunityViewer
from app.conduit.routing import OPTIONAL_AUTH, create_router
from app.conduit.schemas import CommentResponse, CommentsResponse, Name, NewCommentRequest
from app.db.dependencies import ReadConnection, WriteSession
from app.schemas.community.comment import CommentCreate
from app.schemas.types import Id
from app.services.community.comments import reading, writing

router = create_router("Comments")


@router.get(
    "/articles/{slug}/comments", response_model=CommentsResponse, openapi_extra=OPTIONAL_AUTH
)
async def list_comments(
    connection: ReadConnection, viewer: CommunityViewer, slug: Name
) -> dict[str, Any]:
    """List the comments of an article, the newest first."""
    return shapes.comments(await reading.list_latest(connection, slug=slug, viewer=viewer))


@router.post("/articles/{slug}/comments", response_model=CommentResponse)
async def create_comment(
    session: WriteSession, actor: CommunityActor, slug: Name, new: NewCommentRequest
) -> dict[str, Any]:
    """Comment on an article."""
    row = await writing.create_comment_by_slug(
        session, slug=slug, new=CommentCreate(content=new.comment.body), author=actor
    )
    return shapes.comment(row)


@router.delete("/articles/{slug}/comments/{id}", status_code=204)
async def delete_comment(
    session: WriteSession,
    actor: CommunityActor,
    slug: Name,
    id: Id,  # noqa: A002 - Conduit's name
) -> None:
    """Delete a comment of this article."""
    await writing.delete_comment_by_slug(session, slug=slug, comment_id=id, actor=actor)
