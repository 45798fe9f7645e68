"""URLs of the page of an article, percent-encoded: the front end's, or ours without one."""

from urllib.parse import quote

from app.core.config import get_settings

_SAFE = "/?&=:@!$'()*+,;~%-._[]"
"""Characters kept in a configured path; including `%`, as it may be encoded already."""


def article_url(slug: str) -> str:
    """Return the URL of an article's page."""
    return quote(slug, "").join(article_url_parts())


def article_url_parts() -> tuple[str, str]:
    """Return the parts of an article's URL before and after its slug."""
    return url_parts(get_settings().article_path, "{slug}")


def url_parts(path: str, placeholder: str) -> tuple[str, str]:
    """Return the parts of a URL of a page before and after the placeholder in its path."""
    before, _, behind = path.partition(placeholder)
    return site_url() + quote(before, _SAFE), quote(behind, _SAFE)


def site_url() -> str:
    """Return the URL above all pages: PUBLIC_URL, or that of our pages without a front end.

    Our pages have the default paths of ARTICLE_PATH, AUTHOR_PATH and TAG_PATH.
    """
    settings = get_settings()
    if settings.names_front_end:
        return settings.public_url
    return settings.api_url + settings.web_prefix
