"""Old addresses of imported articles, in one spelling."""

import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MAX_LENGTH = 1000

_PERMANENT_QUERIES = {"p", "page_id"}
"""WordPress's query parameters that identify a post."""


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
    path = re.sub(r"/{2,}", "/", f"/{parts.path.lstrip('/')}")
    path = quote(unquote(path, errors="replace"), safe="/!$&'()*+,;=:@~-._")
    for name, value in parse_qsl(parts.query):
        if name in _PERMANENT_QUERIES and value.isascii() and value.isdigit():
            path = f"{path}?{name}={value}"
            break
    is_usable = path != "/" and len(path) <= MAX_LENGTH and "/../" not in f"{path}/"
    return path if is_usable else None
