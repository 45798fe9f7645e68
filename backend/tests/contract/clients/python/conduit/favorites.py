from conduit_client.api.articles import favorite
from conduit_client.models import ArticleResponse

from conduit.session import Session


def run(session: Session) -> None:
    slug = session.publish("A favorite").slug
    added = favorite.sync(slug, client=session.client)
    assert isinstance(added, ArticleResponse), added
    assert added.article.favorites_count == 1
