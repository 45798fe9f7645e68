"""Atom (RFC 4287)."""

from datetime import UTC, datetime
from xml.etree.ElementTree import Element

from app.core.config import get_settings
from app.services.feeds.addresses import api_url, author_url, permanent_id
from app.services.feeds.contents import Feed, Item
from app.services.feeds.xml import add, to_bytes

FILE = "/atom.xml"


def write(feed: Feed) -> bytes:
    """Return the feed as Atom."""
    settings = get_settings()
    self_url = api_url(feed.path + FILE)
    root = Element(
        "feed",
        {"xmlns": "http://www.w3.org/2005/Atom", "xml:lang": settings.default_language},
    )
    add(root, "id", self_url)
    add(root, "title", feed.title)
    if settings.site_description:
        add(root, "subtitle", settings.site_description)
    add(root, "updated", _moment(feed.changed_at))
    add(root, "link", rel="self", type="application/atom+xml", href=self_url)
    add(root, "link", rel="alternate", type="text/html", href=feed.page)
    for item in feed.items:
        _add_entry(root, item)
    return to_bytes(root)


def _add_entry(root: Element, item: Item) -> None:
    entry = add(root, "entry", xml_lang=item.language)
    add(entry, "id", permanent_id(item.id))
    add(entry, "title", item.title)
    add(entry, "published", _moment(item.published_at))
    add(entry, "updated", _moment(item.changed_at))
    add(entry, "link", rel="alternate", type="text/html", href=item.page)
    author = add(entry, "author")
    add(author, "name", item.author)
    add(author, "uri", author_url(item.username))
    for tag in item.tags:
        add(entry, "category", term=tag)
    if item.cover is not None:
        add(entry, "link", rel="enclosure", href=item.cover)
    if item.excerpt:
        add(entry, "summary", item.excerpt)
    if item.html is not None:
        # Relative links in the content are relative to the article's page.
        add(entry, "content", item.html, type="html", xml_base=item.page)


def _moment(moment: datetime) -> str:
    """Format as RFC 3339."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
