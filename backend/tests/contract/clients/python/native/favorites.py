from native_client.api.favorites import favorite, list_favorites
from native_client.models import FavoriteResponse

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("A favorite")
    added = favorite.sync(article.id, client=session.client)
    assert isinstance(added, FavoriteResponse), added
    assert added.favorites_count == 1
    users = list_favorites.sync(article.id, client=session.client)
    assert isinstance(users, list), users
    assert [each.username for each in users] == [session.user.username]
