"""RSS 2.0 with common extensions: content, Dublin Core, Atom links, Media RSS."""

from datetime import UTC, datetime
from email.utils import format_datetime
from xml.etree.ElementTree import Element

from app.core.config import get_settings
from app.services.feeds.addresses import api_url, permanent_id
from app.services.feeds.contents import Feed, Item
from app.services.feeds.xml import add, to_bytes

FILE = "/feed.xml"
_NAMESPACES = {
    "xmlns:atom": "http://www.w3.org/2005/Atom",
    "xmlns:content": "http://purl.org/rss/1.0/modules/content/",
    "xmlns:dc": "http://purl.org/dc/elements/1.1/",
    "xmlns:media": "http://search.yahoo.com/mrss/",
}


def write(feed: Feed) -> bytes:
    """Return the feed as RSS."""
    settings = get_settings()
    root = Element("rss", {"version": "2.0", **_NAMESPACES})
    channel = add(root, "channel")
    add(channel, "title", feed.title)
    add(channel, "link", feed.page)
    add(channel, "description", settings.site_description or feed.title)
    add(channel, "language", settings.default_language)
    if feed.items:
        add(channel, "lastBuildDate", _date(feed.changed_at))
    self_url = api_url(feed.path + FILE)
    add(channel, "atom:link", href=self_url, rel="self", type="application/rss+xml")
    for item in feed.items:
        _add_item(channel, item)
    return to_bytes(root)


def _add_item(channel: Element, item: Item) -> None:
    element = add(channel, "item")
    add(element, "title", item.title)
    add(element, "link", item.page)
    # Not the link, which changes with the slug: feed readers would show the article as unread
    # again.
    add(element, "guid", permanent_id(item.id), isPermaLink="false")
    add(element, "pubDate", _date(item.published_at))
    add(element, "dc:creator", item.author)
    for tag in item.tags:
        add(element, "category", tag)
    if item.excerpt:
        add(element, "description", item.excerpt)
    if item.html is not None:
        add(element, "content:encoded", item.html)
    if item.cover is not None:
        # Not an enclosure, which requires the length in bytes.
        add(element, "media:content", url=item.cover, medium="image")


def _date(moment: datetime) -> str:
    """Format as RFC 822 with a four-digit year."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)
