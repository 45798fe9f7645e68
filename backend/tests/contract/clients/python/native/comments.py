from native_client.api.comments import create_comment, list_comments
from native_client.models import CommentCreate, CommentResponse

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("With comments")
    created = create_comment.sync(
        article.id, client=session.client, body=CommentCreate(content="*Indeed.*")
    )
    assert isinstance(created, CommentResponse), created
    reply = CommentCreate(content="Why?", parent_id=created.id)
    create_comment.sync(article.id, client=session.client, body=reply)
    threads = list_comments.sync(article.id, client=session.client, sort="oldest")
    assert isinstance(threads, list), threads
    assert [each.content for each in threads[0].replies] == ["Why?"]
