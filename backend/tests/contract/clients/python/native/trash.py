from native_client.api.articles import delete_article
from native_client.api.trash import list_trash, restore_article
from native_client.models import ArticleResponse

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("A mistake")
    delete_article.sync(article.id, client=session.client)
    deleted = list_trash.sync(client=session.client, limit=1)
    assert isinstance(deleted, list), deleted
    assert deleted[0].purged_at > deleted[0].deleted_at
    restored = restore_article.sync(article.id, client=session.client)
    assert isinstance(restored, ArticleResponse), restored
