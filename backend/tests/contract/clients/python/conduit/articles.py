from conduit_client.api.articles import list_articles, update_article
from conduit_client.models import (
    ArticleResponse,
    ArticlesResponse,
    UpdateArticle,
    UpdateArticleRequest,
)

from conduit.session import Session


def run(session: Session) -> None:
    article = session.publish("On engines", "Engines")
    changes = UpdateArticleRequest(article=UpdateArticle(body="Another text."))
    changed = update_article.sync(article.slug, client=session.client, body=changes)
    assert isinstance(changed, ArticleResponse), changed
    found = list_articles.sync(client=session.client, author=session.user.username, limit=5)
    assert isinstance(found, ArticlesResponse), found
    assert [each.slug for each in found.articles] == [article.slug]
