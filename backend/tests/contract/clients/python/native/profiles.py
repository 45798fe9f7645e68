from native_client.api.profiles import follow, read_feed, read_profile
from native_client.models import InvalidInput, ProfileResponse

from native.session import Session


def run(session: Session) -> None:
    username = session.user.username
    profile = read_profile.sync(username, client=session.client)
    assert isinstance(profile, ProfileResponse), profile
    assert profile.image_url is None
    refused = follow.sync(username, client=session.client)
    assert isinstance(refused, InvalidInput), refused
    feed = read_feed.sync(client=session.client, limit=5)
    assert feed == []
