"""URLs of pages and of this API, percent-encoded."""

from urllib.parse import quote

from app.core.config import get_settings
from app.services.articles.addresses import site_url, url_parts


def home_url() -> str:
    """Return the URL of the home page."""
    return f"{site_url()}/"


def author_url(username: str) -> str:
    """Return the URL of an author's page."""
    return quote(username, "").join(url_parts(get_settings().author_path, "{username}"))


def tag_url(slug: str) -> str:
    """Return the URL of a tag's page."""
    return quote(slug, "").join(url_parts(get_settings().tag_path, "{slug}"))


def api_url(path: str) -> str:
    """Return the public URL of a path of this API."""
    return get_settings().api_url + path


def absolute_url(address: str) -> str:
    """Return an absolute URL of a cover image, which may be a path on this host."""
    return api_url(address) if address.startswith("/") else address


def permanent_id(article_id: int) -> str:
    """Return a permanent URL as an article's id in feeds; its slug and page may change."""
    return api_url(f"/articles/{article_id}")
