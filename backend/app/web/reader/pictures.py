"""Images of articles: their sizes and variants, so that nothing moves while they load.

The HTML of articles is completed with what depends on the page, which the renderer does not know.
"""

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from app.db.reading import Reader
from app.schemas.media import MediaResponse
from app.services.media import library
from app.web.localization import gettext as _

CONTENT_SIZES = "(min-width: 44rem) 42rem, calc(100vw - 2rem)"
"""The width of images in an article's content (static/reader.css)."""

# Tags as the sanitizer writes them: attribute values are in double quotes. Every tag is matched, so
# that none is found in the value of an attribute.
_TAG = re.compile(r'<([a-z0-9]++)((?:[^<>"]|"[^"]*+")*+)>')
_SOURCE = re.compile(r' src="([^"]*+)"')
_DIMENSION = re.compile(r" (?:width|height)=")


class Pictures:
    """The stored images that some articles show."""

    def __init__(self, media: Mapping[str, MediaResponse]) -> None:
        """`media` has the images by their folder."""
        self._media = media

    def find(self, url: str) -> MediaResponse | None:
        """Return the stored image of a URL; None for an image of another site."""
        folder = library.folder_in(url)
        return self._media.get(folder) if folder else None

    def complete(self, html: str) -> Markup:
        """Return an article's HTML, with sizes and variants of its images.

        Boxes that scroll can be reached with the keyboard, and checkboxes have a name.
        """
        return Markup(_TAG.sub(self._complete_tag, html))  # noqa: S704 - rendered by the server

    def _complete_tag(self, tag: re.Match[str]) -> str:
        match tag[1]:
            case "img":
                return self._complete_image(tag[2])
            case "pre" | "table":
                return f'<{tag[1]} tabindex="0"{tag[2]}>'
            case "input":
                name = escape(_("Task"))
                return f'<input aria-label="{name}"{tag[2]}>'
        return tag[0]

    def _complete_image(self, attributes: str) -> str:
        source = _SOURCE.search(attributes)
        added = ' loading="lazy" decoding="async"'
        media = self.find(source[1]) if source else None
        if media is not None:
            added += f' srcset="{self.source_set(media)}" sizes="{CONTENT_SIZES}"'
            if not _DIMENSION.search(attributes):
                added += f' width="{media.width}" height="{media.height}"'
        return f"<img{attributes.rstrip(' /')}{added}>"

    @staticmethod
    def source_set(media: MediaResponse) -> str:
        """Return the `srcset` of an image: its variants, and the image itself."""
        variants = [f"{each.url} {each.width}w" for each in media.variants]
        return ", ".join([*variants, f"{media.url} {media.width}w"])


async def pictures_in(reader: Reader, texts: Sequence[str | None]) -> Pictures:
    """Return the stored images whose URLs are in the texts. Runs one query, or none."""
    return Pictures(await library.find_by_urls(reader, texts=[each for each in texts if each]))
