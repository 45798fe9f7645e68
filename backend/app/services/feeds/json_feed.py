"""JSON Feed 1.1."""

from app.core.config import get_settings
from app.schemas.feeds import JsonFeed, JsonFeedAuthor, JsonFeedItem
from app.services.feeds.addresses import api_url, author_url, permanent_id
from app.services.feeds.contents import Feed, Item

FILE = "/feed.json"


def write(feed: Feed) -> bytes:
    """Return the feed as JSON."""
    settings = get_settings()
    document = JsonFeed(
        version="https://jsonfeed.org/version/1.1",
        title=feed.title,
        home_page_url=feed.page,
        feed_url=api_url(feed.path + FILE),
        description=settings.site_description or None,
        language=settings.default_language,
        items=[_item(item) for item in feed.items],
    )
    return document.model_dump_json(exclude_none=True).encode()


def _item(item: Item) -> JsonFeedItem:
    return JsonFeedItem(
        id=permanent_id(item.id),
        url=item.page,
        title=item.title,
        content_html=item.html,
        content_text=item.excerpt
        if item.html is None
        else None,  # JSON Feed requires one of the two
        summary=item.excerpt or None,
        image=item.cover,
        date_published=item.published_at,
        date_modified=item.changed_at,
        authors=[JsonFeedAuthor(name=item.author, url=author_url(item.username))],
        tags=list(item.tags),
        language=item.language,
    )
