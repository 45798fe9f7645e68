"""Addresses: which ones articles can have, and those of videos and other embedded content."""

import re
from urllib.parse import parse_qs, quote, unquote, urlsplit

from app.content.markdown import SCHEMES, embed_provider

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_INVISIBLE = re.compile(r"[\t\n\r\x00-\x1f]+")
_YOUTUBE = re.compile(
    r"(?:https?:)?//(?:www\.|m\.)?(?:youtube(?:-nocookie)?\.com/(?:embed|v|e|shorts|live)/"
    r"|youtube(?:-nocookie)?\.com/watch\?(?:[^#]{0,200}&)?v=|youtu\.be/)([\w-]{6,20})",
    re.IGNORECASE | re.ASCII,
)
_VIMEO = re.compile(
    r"(?:https?:)?//(?:player\.|www\.)?vimeo\.com/(?:video/|moogaloop\.swf\?clip_id=)?(\d{1,15})",
    re.IGNORECASE | re.ASCII,
)
_UNSAFE = re.compile(r"[^!#-;=?-_a-z~]")
MAX_ADDRESS = 2000


def address(url: str) -> str:
    """Return the address as articles can have it, or an empty string.

    Spaces and other characters that addresses must not contain are percent-encoded.
    """
    url = _INVISIBLE.sub("", url.strip())
    scheme = _SCHEME.match(url)
    if not url or (scheme and scheme[1].lower() not in SCHEMES):
        return ""
    return _UNSAFE.sub(_encode, url)


def _encode(character: re.Match[str]) -> str:
    is_letter = character[0] > "\x7f" and not character[0].isspace()
    return character[0] if is_letter else quote(character[0])


def canonical_player(url: str) -> str:
    """Return the address of an embedded player as a visitor would open it."""
    if match := _YOUTUBE.match(url):
        start = parse_qs(urlsplit(url).query).get("start", [""])[0]
        seconds = f"&t={start}" if start.isdigit() else ""
        return f"https://www.youtube.com/watch?v={match[1]}{seconds}"
    if match := _VIMEO.match(url):
        return f"https://vimeo.com/{match[1]}"
    return f"https:{url}" if url.startswith("//") else url


def file_name(url: str) -> str:
    """Return the name of the file that an address leads to, or the address."""
    name = unquote(re.split(r"[?#]", url, maxsplit=1)[0].rpartition("/")[2])
    return name if name and name.isprintable() else url


def has_player(url: str) -> bool:
    """Return whether the renderer shows a player for this address alone in a paragraph."""
    return embed_provider(url) is not None and len(url) <= MAX_ADDRESS and not _UNSAFE.search(url)
