from native_client.api.articles import update_article
from native_client.api.revisions import diff_revision, list_revisions
from native_client.models import ArticleUpdate, RevisionDiff

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("First title")
    update_article.sync(article.id, client=session.client, body=ArticleUpdate(title="Second title"))
    revisions = list_revisions.sync(article.id, client=session.client)
    assert isinstance(revisions, list), revisions
    difference = diff_revision.sync(article.id, revisions[0].id, client=session.client)
    assert isinstance(difference, RevisionDiff), difference
    assert difference.against == "current"
