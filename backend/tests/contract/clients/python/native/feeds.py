from native_client.api.feeds import read_json_feed
from native_client.models import JsonFeed

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("In the feeds")
    feed = read_json_feed.sync(client=session.client)
    assert isinstance(feed, JsonFeed), feed
    assert article.title in [item.title for item in feed.items]
