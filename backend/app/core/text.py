"""Words made fit for addresses and for comparing, in any script."""

import re
import unicodedata

from anyascii import anyascii

MAX_SLUG = 80
_NEAR = 20
"""How much of a slug may be given up to end it at a hyphen."""

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_APOSTROPHES = re.compile(r"['`]")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")

# Cc, what turns the direction of text, and what takes no space. The joiners (U+200C, U+200D) stay:
# Persian words and emoji are written with them. So do tabs and line breaks, which are white space.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def slugify(text: str, *, fallback: str = "article") -> str:
    """`text` as a word of an address: [a-z0-9-], 1 to 80 characters.

    Other scripts are transliterated. What has no letters comes out as `fallback`, and what has
    nothing but digits after it, for a number would be read as an id.
    """
    ascii_text = anyascii(_HAN.sub(r" \g<0> ", text))
    slug = _NOT_SLUG.sub("-", _APOSTROPHES.sub("", ascii_text).lower()).strip("-")
    if not slug:
        return fallback
    return _cut(f"{fallback}-{slug}" if slug.isdigit() else slug)


def tidy(text: str) -> str:
    """`text` in NFC, without what cannot be seen, with one space for each run of white space.

    NFC and not NFKC: the latter would turn ² into 2 and ﬁ into fi, and people choose how a name is
    written. Whether two names are the same is for their slugs to say.
    """
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", text)).split())


def _cut(slug: str) -> str:
    """At most MAX_SLUG characters of it, up to a hyphen where there is one near."""
    if len(slug) <= MAX_SLUG:
        return slug
    hyphen = slug.rfind("-", MAX_SLUG - _NEAR, MAX_SLUG + 1)
    return slug[: hyphen if hyphen > 0 else MAX_SLUG]
