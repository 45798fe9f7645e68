"""Images of articles: their sizes and variants, so that nothing moves while they load."""

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from app.db.reading import Reader
from app.schemas.media import MediaResponse
from app.services.media import library

CONTENT_SIZES = "(min-width: 44rem) 42rem, calc(100vw - 2rem)"
"""The width of images in an article's content (static/reader.css)."""

# Tags as the renderer writes them: attribute values are in double quotes.
_IMAGE = re.compile(r'<img(?= )([^<>"]*+(?:"[^"]*+"[^<>"]*+)*+)>')
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
        """Return an article's HTML, with sizes and variants of its images."""
        return Markup(_IMAGE.sub(self._complete, html))  # noqa: S704 - rendered by the server

    def _complete(self, tag: re.Match[str]) -> str:
        source = _SOURCE.search(tag[1])
        added = ' loading="lazy" decoding="async"'
        media = self.find(source[1]) if source else None
        if media is not None:
            added += f' srcset="{self.source_set(media)}" sizes="{CONTENT_SIZES}"'
            if not _DIMENSION.search(tag[1]):
                added += f' width="{media.width}" height="{media.height}"'
        return f"<img{tag[1].rstrip(' /')}{added}>"

    @staticmethod
    def source_set(media: MediaResponse) -> str:
        """Return the `srcset` of an image: its variants, and the image itself."""
        variants = [f"{each.url} {each.width}w" for each in media.variants]
        return ", ".join([*variants, f"{media.url} {media.width}w"])


async def pictures_in(reader: Reader, texts: Sequence[str | None]) -> Pictures:
    """Return the stored images whose URLs are in the texts. Runs one query, or none."""
    return Pictures(await library.find_by_urls(reader, texts=[each for each in texts if each]))
