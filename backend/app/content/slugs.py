"""Slugs, text normalization and tag keys, for all scripts."""

import re
import unicodedata
from functools import lru_cache

from anyascii import anyascii

MAX_SLUG = 80
_MAX_CUT = 20
"""Maximum characters that are dropped so that a slug ends at a hyphen."""

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_APOSTROPHES = re.compile(r"['`]")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")

# Control characters (Cc), bidirectional controls and zero-width characters. The joiners (U+200C,
# U+200D) stay: Persian words and emoji need them. Tabs and line breaks stay as white space.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"
)

# Unicode's Default_Ignorable_Code_Point, except the tag characters of flags such as Scotland's.
_IGNORED = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007f]+)|[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SPACES = re.compile(" +")
_SYMBOL_NAMES = {ord("+"): " plus ", ord("#"): " sharp "}
"""Symbols that distinguish names such as C, C++ and C#."""


def slugify(text: str, *, fallback: str = "article") -> str:
    """Return `text` as a URL path segment: [a-z0-9-], 1 to 80 characters.

    Other scripts are transliterated. Text without letters and digits becomes `fallback`. Text with
    only digits is prefixed with `fallback`, because routes read a number as an id.
    """
    ascii_text = anyascii(_HAN.sub(r" \g<0> ", text))
    slug = _NOT_SLUG.sub("-", _APOSTROPHES.sub("", ascii_text).lower()).strip("-")
    if not slug:
        return fallback
    return _truncate(f"{fallback}-{slug}" if slug.isdigit() else slug)


def normalize_text(text: str) -> str:
    """Return `text` in NFC, without invisible characters, and with white space collapsed.

    NFKC would replace characters that the author chose: ² by 2 and ﬁ by fi. `tag_key` returns the
    form in which tags are compared.
    """
    return " ".join(unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).split())


@lru_cache(maxsize=4096)  # imports and lists repeat few names
def tag_key(name: str) -> str:
    """Return the key of a tag name: names with the same key are the same tag.

    The key is in NFKC and case-folded (Unicode D146). Ignorable code points, the `#` of a hashtag
    and repeated spaces are removed. The SQL function `tag_key` (migration 0007) returns the same.
    """
    folded = unicodedata.normalize("NFKC", _IGNORED.sub(r"\1", name)).casefold()
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", folded)).lstrip(" #").rstrip(" ")


def tag_slug(key: str) -> str:
    """Return the preferred slug of a tag; the caller makes it unique."""
    spelled = f"dot{key}" if key.startswith(".") else key
    return slugify(spelled.translate(_SYMBOL_NAMES), fallback="tag")


def _truncate(slug: str) -> str:
    """Shorten `slug` to MAX_SLUG characters, at a hyphen if there is one near the end."""
    if len(slug) <= MAX_SLUG:
        return slug
    hyphen = slug.rfind("-", MAX_SLUG - _MAX_CUT, MAX_SLUG + 1)
    return slug[: hyphen if hyphen > 0 else MAX_SLUG]
