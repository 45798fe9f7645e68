"""URLs of the front end's page of an article, percent-encoded."""

from urllib.parse import quote

from app.core.config import get_settings

_SAFE = "/?&=:@!$'()*+,;~%-._[]"
"""Characters kept in a configured path; including `%`, as it may be encoded already."""


def article_url(slug: str) -> str:
    """Return the front end's URL of an article."""
    return quote(slug, "").join(article_url_parts())


def article_url_parts() -> tuple[str, str]:
    """Return the parts of an article's URL before and after its slug."""
    return url_parts(get_settings().article_path, "{slug}")


def url_parts(path: str, placeholder: str) -> tuple[str, str]:
    """Return the parts of a URL below PUBLIC_URL before and after the placeholder in its path."""
    before, _, behind = path.partition(placeholder)
    return get_settings().public_url + quote(before, _SAFE), quote(behind, _SAFE)
