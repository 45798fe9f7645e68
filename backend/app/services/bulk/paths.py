"""Old addresses of imported articles, in one spelling."""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MAX_LENGTH = 1000

_PERMANENT_QUERIES = {"p", "page_id"}
"""WordPress's query parameters that identify a post."""
_INDEX = re.compile(r"(?<=/)index\.(?:html?|php)$")


def old_path(address: str) -> str | None:
    """Return the path of an old address, or None if it has none that can redirect.

    The path is percent-encoded, without a fragment. A query is dropped, except WordPress's
    `?p=17`. The start page has no path.
    """
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return None
    if parts.scheme not in {"", "http", "https"}:
        return None
    return canonical_path(unquote(parts.path, errors="replace"), parts.query)


def canonical_path(path: str, query: str = "") -> str | None:
    """Return a decoded path, with its query, as `old_path` does."""
    path = quote(re.sub(r"/{2,}", "/", f"/{path.lstrip('/')}"), safe="/!$&'()*+,;=:@~-._")
    for name, value in parse_qsl(query):
        if name in _PERMANENT_QUERIES and value.isascii() and value.isdigit():
            path = f"{path}?{name}={value}"
            break
    is_usable = path != "/" and len(path) <= MAX_LENGTH and "/../" not in f"{path}/"
    return path if is_usable else None


def spellings(path: str) -> Sequence[str]:
    """Return the paths under which servers show the same page, the given one first.

    Such as with and without a slash at the end, and with the name of the index page.
    """
    page, mark, query = path.partition("?")
    if mark:
        bare = page.rstrip("/") or "/"
        found = [path, f"{bare.rstrip('/')}/?{query}", f"{bare}?{query}", f"/?{query}"]
        return list(dict.fromkeys(found))
    page = _INDEX.sub("", page).removesuffix("/amp/").removesuffix("/amp")
    page = page.removeprefix("/index.php") or page
    bare = page.rstrip("/")
    stem = re.sub(r"\.html?$", "", bare)
    found = [path, page, bare, f"{bare}/", f"{stem}.html", f"{stem}/", stem, f"{bare}/index.html"]
    return [each for each in dict.fromkeys(found) if each not in {"", "/", ".html", "/.html"}]
