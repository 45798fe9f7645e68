from native_client.api.changes import list_changes
from native_client.models import ChangesResponse

from native.session import Session


def run(session: Session) -> None:
    latest = list_changes.sync(client=session.client, cursor="latest")
    assert isinstance(latest, ChangesResponse), latest
    article = session.publish("A change")
    page = list_changes.sync(client=session.client, cursor=latest.next_)
    assert isinstance(page, ChangesResponse), page
    kinds = [each.kind for each in page.changes if each.article_id == article.id]
    assert kinds == ["created"]
