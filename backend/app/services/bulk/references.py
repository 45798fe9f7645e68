"""What the addresses in texts of an old site refer to: other texts, images, or other sites.

An address is read twice: when its text is imported, and again whenever the same source is imported
until its target is known. Nothing here accesses the network, a file or the database.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from app.services.bulk.paths import canonical_path, old_path, spellings

MAX_ADDRESS_BYTES = 2000

_IMAGE_NAME = re.compile(r"\.(?:jpe?g|jpe|jfif|png|gif|webp|avif)$", re.IGNORECASE)
_TEXT_NAME = re.compile(r"\.(?:md|markdown|mdown|mkdn?|mdwn|mdx|html?)$", re.IGNORECASE)
_OWN_MEDIA = re.compile(r"/media/[0-9a-f]{32}/")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_MAY_REFER = re.compile(
    r"\]\(\s*+<?(?![A-Za-z][A-Za-z0-9+.-]{0,20}:|#|\))"
    r"|\]:\s*+<?(?![A-Za-z][A-Za-z0-9+.-]{0,20}:|#)"
    r"|\s(?:href|src|poster)\s*+=\s*+[\"']?+(?![A-Za-z][A-Za-z0-9+.-]{0,20}:|#)",
    re.IGNORECASE,
)
"""Where a text may contain a relative address. It finds too many rather than too few."""
_CDN = re.compile(r"i[0-9]\.wp\.com")
"""Hosts that serve the images of other sites: the path begins with the name of the site."""
_RESIZING = frozenset(
    {"w", "h", "resize", "fit", "quality", "ssl", "strip", "crop", "zoom", "width", "height"}
)
"""Query parameters with which servers make smaller versions of an image."""
_CONTENT_ROOTS = ("content", "src/content", "src/pages", "source", "docs")
"""Folders of generators whose texts are served at the root of the site."""


class Site(NamedTuple):
    """The old site."""

    address: str = ""
    """Such as `https://blog.example`, or empty if it is not known."""
    media_hosts: frozenset[str] = frozenset()
    """Other hosts that have its images."""
    is_folder: bool = False
    """Whether the source is a folder, in which texts refer to each other by the names of files."""

    @property
    def origin(self) -> str:
        """The address without its path."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    @property
    def prefix(self) -> str:
        """The path of the address, without a slash at the end."""
        return urlsplit(self.address).path.rstrip("/")

    def has(self, host: str) -> bool:
        """Return whether a host is the site's, with or without `www.`."""
        own = host_of(self.address)
        return bool(own) and _bare_host(host) == _bare_host(own)


class OldAddress(NamedTuple):
    """An address of the old site in a text."""

    address: str
    """As the article has it: absolute if the site's address is known."""
    source_address: str
    """As the source has it."""
    is_image: bool


class PageTarget(NamedTuple):
    """How to find the article that a link leads to."""

    paths: Sequence[str]
    """Old paths that the article may have, the most likely ones first."""
    files: Sequence["FileName"]
    """Files that the article may come from, the most likely ones first."""
    fragment: str


class FileName(NamedTuple):
    """The path of a text in its folder, without its ending and in lower case."""

    stem: str
    is_loose: bool = False
    """Whether a file in any folder may be meant, as with Jekyll's `post_url` and Hugo's `ref`."""


class ImageTarget(NamedTuple):
    """How to find an image."""

    url: str
    """Its absolute address without the fragment, or empty if the site is not known."""
    files: Sequence[str]
    """Paths that it may have in a folder."""
    identity: str
    """Equal for all spellings of its address."""


def is_site_address(source: str) -> bool:
    """Return whether the name of a source is the address of a site."""
    return source[:8].lower().startswith(("http://", "https://"))


def host_of(address: str) -> str:
    """Return the host of an address with its port, in lower case; empty if there is none."""
    parts = _split(address)
    return "" if parts is None else parts.netloc.rpartition("@")[2].lower()


def _bare_host(host: str) -> str:
    return re.sub(r":(?:80|443)$", "", host.removeprefix("www."))


def may_refer(text: str, site: Site) -> bool:
    """Return quickly whether a text may contain an address of the site."""
    hosts = filter(None, (_bare_host(host_of(site.address)), *site.media_hosts))
    lower = text.lower() if site.address or site.media_hosts else ""
    return any(host in lower for host in hosts) or _MAY_REFER.search(text) is not None


def read_address(url: str, *, is_image: bool, page: str, site: Site) -> OldAddress | None:
    """Return the address if it is one of the site, or None.

    `page` is the old path of the text, to which addresses may be relative.
    """
    url = url.strip()
    parts = _http(url)
    if parts is None or _OWN_MEDIA.match(parts.path):
        return None
    is_image = is_image or _IMAGE_NAME.search(parts.path) is not None
    absolute = url if parts.scheme else f"https:{url}"
    if not parts.netloc:
        absolute = _absolute(url, page, site)
    elif not (site.has(host_of(url)) or (is_image and _has_images(host_of(url), parts.path, site))):
        return None
    is_short = len(absolute.encode()) <= MAX_ADDRESS_BYTES
    return OldAddress(absolute, url, is_image) if is_short else None


def _http(url: str) -> SplitResult | None:
    """Return the parts of an address that a browser would request, or None."""
    if not url or url[0] == "#" or len(url) > MAX_ADDRESS_BYTES:
        return None
    parts = _split(url)
    scheme = _SCHEME.match(url)
    if parts is None or (scheme and not (parts.netloc and scheme[1].lower() in {"http", "https"})):
        return None
    return parts


def _has_images(host: str, path: str, site: Site) -> bool:
    if _CDN.fullmatch(host):
        return site.has(path.lstrip("/").partition("/")[0].lower())
    return host in site.media_hosts


def _absolute(url: str, page: str, site: Site) -> str:
    if not site.address:
        return url
    if url.startswith("/"):
        return site.origin + url
    base = page if page.startswith(f"{site.prefix}/") else site.prefix + (page or "/")
    try:
        return urljoin(f"{site.origin}{base}", url)
    except ValueError:
        return url


def page_target(found: OldAddress, *, source_id: str, site: Site) -> PageTarget:
    """Return how to find the article of a link. `source_id` is that of the text."""
    parts = _split(found.address) or SplitResult("", "", "", "", "")
    paths: list[str] = []
    if path := old_path(found.address):
        paths += spellings(path)
        prefix = site.prefix
        if prefix and path.startswith(f"{prefix}/"):
            inner = canonical_path(
                unquote(parts.path, errors="replace")[len(prefix) :], parts.query
            )
            paths += spellings(inner) if inner else []
        elif prefix:
            paths += spellings(prefix + path)
    files = list(_files(found.source_address, source_id)) if site.is_folder else []
    return PageTarget(list(dict.fromkeys(paths)), files, parts.fragment)


def _files(url: str, source_id: str) -> Iterable[FileName]:
    """Yield the files that an address in a file may mean, the most likely first."""
    parts = _split(url)
    if parts is None or not parts.path.strip("/"):
        return
    path = unquote(parts.path, errors="replace")
    if parts.netloc or path.startswith("/"):
        stem = file_stem(_joined("", path))
        yield FileName(stem)
        yield from (FileName(f"{root}/{stem}") for root in _CONTENT_ROOTS)
        return
    yield FileName(file_stem(_joined(posixpath.dirname(source_id), path)))
    if path[0] != ".":
        yield FileName(file_stem(_joined("", path)), is_loose=True)


@lru_cache(maxsize=4096)
def file_stem(path: str) -> str:
    """Return the path of a text without its ending, and that of a folder for its index page."""
    stem = _TEXT_NAME.sub("", path.strip("/")).lower()
    folder, _, name = stem.rpartition("/")
    return folder if name in {"index", "_index", "readme"} and folder else stem


def _joined(folder: str, path: str) -> str:
    """Return a normalized path below the source; above it, it ends there."""
    return posixpath.normpath(f"/{folder}/{path}").lstrip("/")


def image_target(found: OldAddress, *, source_id: str, site: Site) -> ImageTarget:
    """Return how to find an image. `source_id` is that of the text."""
    parts = _split(found.address) or SplitResult("", "", "", "", "")
    host, path, query = host_of(found.address), parts.path, parts.query
    if _CDN.fullmatch(host):
        host, _, rest = path.lstrip("/").partition("/")
        host, path = host.lower(), f"/{rest}"
    names = {each.partition("=")[0] for each in query.split("&")}
    if names <= _RESIZING:
        query = ""
    files: list[str] = []
    source = _split(found.source_address)
    if source is not None and not source.netloc and not source.path.startswith("/"):
        folder = posixpath.dirname(source_id) if site.is_folder else ""
        files.append(_joined(folder, unquote(source.path, errors="replace")))
    decoded = unquote(path, errors="replace")
    if host or not files:
        files.append(_joined("", decoded))
    if site.prefix and decoded.startswith(f"{site.prefix}/"):
        files.append(_joined("", decoded[len(site.prefix) :]))
    url = ""
    if host:
        scheme = parts.scheme.lower() or "https"
        url = f"{scheme}://{host}{path or '/'}" + (f"?{query}" if query else "")
    place = f"{_bare_host(host)}{decoded}" if host else files[0]
    return ImageTarget(url, list(dict.fromkeys(files)), f"{place}?{query}" if query else place)


def without_size(name: str) -> str | None:
    """Return the name of the image of which WordPress or Ghost made this version, or None."""
    if found := _SIZED.fullmatch(name):
        return f"{found[1]}{found[2]}"
    whole = _SIZE_FOLDER.sub("content/images/", name)
    return whole if whole != name else None


_SIZED = re.compile(r"(.*)-\d{1,5}x\d{1,5}(\.[A-Za-z]{3,4})", re.DOTALL)
_SIZE_FOLDER = re.compile(r"content/images/size/w\d{1,5}(?:h\d{1,5})?/(?:format/[a-z]{3,5}/)?")
_FILE_NAME = re.compile(r"\.(?!html?$|php$|md$|mdx$|markdown$)[a-z][a-z0-9]{1,4}$", re.IGNORECASE)


def is_file(address: str) -> bool:
    """Return whether a link leads to a file, such as a PDF, rather than to a page."""
    parts = _split(address)
    return parts is not None and _FILE_NAME.search(parts.path) is not None


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
