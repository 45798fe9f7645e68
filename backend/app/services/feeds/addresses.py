"""Where things are: pages of the front end, and files of this API. All percent-encoded."""

from urllib.parse import quote

from app.core.config import get_settings

_IN_A_URL = "/?&=:@!$'()*+,;~%-._[]"
"""What stays as it is in a path that the operator wrote; `%` too, for it may be encoded already."""


def home() -> str:
    """The front end's first page."""
    return f"{get_settings().public_url}/"


def article_page(slug: str) -> str:
    """Where the front end shows an article."""
    return quote(slug, "").join(around_slug())


def author_page(username: str) -> str:
    """Where it shows an author."""
    return quote(username, "").join(_around(get_settings().author_path, "{username}"))


def tag_page(slug: str) -> str:
    """Where it shows what has a tag."""
    return quote(slug, "").join(_around(get_settings().tag_path, "{slug}"))


def around_slug() -> tuple[str, str]:
    """What stands before and behind an article's slug in its page's address."""
    return _around(get_settings().article_path, "{slug}")


def _around(path: str, placeholder: str) -> tuple[str, str]:
    before, _, behind = path.partition(placeholder)
    return get_settings().public_url + quote(before, _IN_A_URL), quote(behind, _IN_A_URL)


def here(path: str) -> str:
    """A path of this API, as it is reached from outside."""
    return get_settings().api_url + path


def picture(address: str) -> str:
    """A cover's address, which may be a path on this host."""
    return here(address) if address.startswith("/") else address


def permanent_id(article_id: int) -> str:
    """What an article is called for ever: its slug may change, and its page with it."""
    return here(f"/articles/{article_id}")
