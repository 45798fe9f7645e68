from conduit_client.api.comments import create_comment, list_comments
from conduit_client.models import (
    CommentResponse,
    CommentsResponse,
    NewComment,
    NewCommentRequest,
)

from conduit.session import Session


def run(session: Session) -> None:
    slug = session.publish("With comments").slug
    new = NewCommentRequest(comment=NewComment(body="Indeed."))
    created = create_comment.sync(slug, client=session.client, body=new)
    assert isinstance(created, CommentResponse), created
    listed = list_comments.sync(slug, client=session.client)
    assert isinstance(listed, CommentsResponse), listed
    assert [each.id for each in listed.comments] == [created.comment.id]
