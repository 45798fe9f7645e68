"""Origins of front ends (RFC 6454): the notation of CORS_ORIGINS, and how origins are compared.

`nginx/scripts/origins.sh` has the same rules, for the errors that nginx returns itself.
"""

import re
from collections.abc import Collection

ANY = "*"
"""An entry for all origins."""

_HOST = r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])"
_PORT = r":[1-9][0-9]{0,4}"
_ORIGIN = re.compile(rf"({_HOST})(?:{_PORT})?")
_ENTRY = re.compile(rf"{_HOST}(?:{_PORT}|:\*)?")


def parse_origin(text: str) -> str:
    """Return an entry of CORS_ORIGINS as browsers write it: lower case, without a default port.

    The port may be `*`, and `*` alone stands for all origins. Raises ValueError for anything else.
    """
    if text == ANY:
        return text
    entry = text.lower()
    if not text.isascii() or not _ENTRY.fullmatch(entry):
        raise ValueError(f"{text!r} must be an origin such as https://www.example.com")
    return entry.removesuffix(":443" if entry.startswith("https:") else ":80")


def is_listed(origin: str, entries: Collection[str]) -> bool:
    """Return whether an Origin header is one of `entries`. `*` alone is not considered."""
    match = _ORIGIN.fullmatch(origin)
    return match is not None and (origin in entries or f"{match[1]}:*" in entries)


def is_http_origin(origin: str) -> bool:
    """Return whether an Origin header has the form that CORS_ORIGINS accepts."""
    return len(origin) <= 300 and _ORIGIN.fullmatch(origin) is not None
