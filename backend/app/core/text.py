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

# Unicode's Default_Ignorable_Code_Point, but for the tag characters of a flag such as Scotland's.
_IGNORED = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007f]+)|[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SPACES = re.compile(" +")
_SPOKEN = {ord("+"): " plus ", ord("#"): " sharp "}
"""Characters that distinguish names such as C, C++ and C#."""


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
    written. Whether two tags are the same is for `tag_key` to say.
    """
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", text)).split())


def tag_key(name: str) -> str:
    """The form in which names of tags are compared: two with the same key are one tag.

    NFKC and full case folding (Unicode D146), without ignorable code points, the `#` of a hashtag
    and repeated spaces. The SQL function of this name (migration 0007) returns the same.
    """
    folded = unicodedata.normalize("NFKC", _IGNORED.sub(r"\1", name)).casefold()
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", folded)).lstrip(" #").rstrip(" ")


def tag_slug(key: str) -> str:
    """The slug of the tag with this key, unless another tag has it."""
    spoken = f"dot{key}" if key.startswith(".") else key
    return slugify(spoken.translate(_SPOKEN), fallback="tag")


def _cut(slug: str) -> str:
    """At most MAX_SLUG characters of it, up to a hyphen where there is one near."""
    if len(slug) <= MAX_SLUG:
        return slug
    hyphen = slug.rfind("-", MAX_SLUG - _NEAR, MAX_SLUG + 1)
    return slug[: hyphen if hyphen > 0 else MAX_SLUG]
