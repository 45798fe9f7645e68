"""Redirects from old addresses to articles: looked up for readers, and written as files.

Only those of sources that the operator or an editor imported count, and only to articles that
everyone may read. Of several redirects from one path, the oldest one counts. The target is always
the page of an article here, so that no request can choose it.
"""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from sqlalchemy import ARRAY, Integer, String, any_, bindparam, func, select, tuple_

from app.core import clock
from app.core.errors import NotFound
from app.db.reading import Reader
from app.db.session import Database
from app.models.articles.article import Article
from app.models.bulk import Redirect
from app.services.articles.addresses import article_url, site_url
from app.services.articles.rows import PUBLIC
from app.services.bulk.paths import canonical_path, spellings
from app.services.bulk.records import KeySet

BATCH = 5000
MAX_PATH = 2000

_PATHS = bindparam("paths", type_=ARRAY(String))
_FIND = (
    select(Article.slug)
    .join(Redirect, Redirect.article_id == Article.id)
    .where(Redirect.path == any_(_PATHS), Redirect.is_served, PUBLIC)
    .order_by(
        func.array_position(_PATHS, Redirect.path), Redirect.created_at, Redirect.source, Article.id
    )
    .limit(1)
)
_ALL = (
    select(Redirect.path, Redirect.source, Redirect.created_at, Article.slug)
    .join(Article, Article.id == Redirect.article_id)
    .where(
        Redirect.is_served,
        PUBLIC,
        tuple_(Redirect.path, Redirect.source)
        > tuple_(bindparam("path", type_=String), bindparam("source", type_=String)),
    )
    .order_by(Redirect.path, Redirect.source)
    .limit(bindparam("size", type_=Integer))
)
_OF_SOURCES = _ALL.where(Redirect.source == any_(bindparam("sources", type_=ARRAY(String))))


class MapFormat(StrEnum):
    """A format of redirect maps."""

    NGINX = "nginx"
    NETLIFY = "netlify"
    JSON = "json"


class OldPage(NamedTuple):
    """An old path, and the address of the article that it leads to."""

    path: str
    target: str


async def find_redirect(reader: Reader, *, path: str, query: str) -> str:
    """Return the URL of the article that had this path in an old system. Raises NotFound.

    The path is decoded.
    """
    canonical = canonical_path(path, query) if len(path) <= MAX_PATH else None
    if canonical is None:
        raise NotFound
    paths = list(spellings(canonical))
    if "?" in canonical and (without_id := canonical_path(path)):
        paths += spellings(without_id)
    slug = await reader.scalar(_FIND, {"paths": paths, "now": clock.now()})
    if slug is None:
        raise NotFound
    return article_url(slug)


async def read_redirects(
    database: Database, *, sources: Sequence[str] | None, site: str = ""
) -> AsyncIterator[OldPage]:
    """Yield the redirects of these sources, or of all, ordered by path.

    A target is a path if the old site had the host of the articles now, or if that is not known.
    """
    host = urlsplit(site_url()).netloc
    old_host = urlsplit(site).netloc
    is_same_host = old_host.removeprefix("www.") in {"", host.removeprefix("www.")}
    statement = _ALL if sources is None else _OF_SOURCES
    parameters = {"sources": sources or [], "now": clock.now(), "size": BATCH}
    path, source = "", ""
    best: tuple[object, str, str] | None = None
    while True:
        page = {**parameters, "path": path, "source": source}
        async with database.autocommit() as connection:
            rows = (await connection.execute(statement, page)).all()
        for row in rows:
            if best is not None and row.path != path:
                yield OldPage(path, _target(best[2], is_same_host=is_same_host))
                best = None
            path, source = row.path, row.source
            found = (row.created_at, row.source, row.slug)
            best = found if best is None or found < best else best
        if len(rows) < BATCH:
            break
    if best is not None:
        yield OldPage(path, _target(best[2], is_same_host=is_same_host))


def _target(slug: str, *, is_same_host: bool) -> str:
    url = article_url(slug)
    parts = urlsplit(url)
    return url.removeprefix(f"{parts.scheme}://{parts.netloc}") if is_same_host else url


class MapWriter:
    """Writes redirects to a file in one format. `close` completes the file."""

    def __init__(self, file: BinaryIO, form: MapFormat) -> None:
        self.count = 0
        self._file = file
        self._form = form
        self._nginx = _NginxMaps() if form is MapFormat.NGINX else None

    def add(self, page: OldPage) -> None:
        """Write a redirect."""
        self.count += 1
        if self._nginx is not None:
            self._nginx.add(page)
        elif self._form is MapFormat.NETLIFY:
            self._write(_netlify_rule(page))
        else:
            start = "{\n" if self.count == 1 else ",\n"
            self._write(f"{start}{json.dumps(page.path)}: {json.dumps(page.target)}")

    def close(self) -> None:
        """Write the end of the file."""
        if self._nginx is not None:
            self._nginx.write(self._file)
        elif self._form is MapFormat.JSON:
            self._write("\n}\n" if self.count else "{}\n")

    def _write(self, text: str) -> None:
        self._file.write(text.encode())


def _netlify_rule(page: OldPage) -> str:
    """Return a rule. `:name` and `*` would match other paths."""
    path, _, query = page.path.partition("?")
    path = path.replace(":", "%3A").replace("*", "%2A")
    condition = f" {query}" if query else ""
    return f"{path}{condition} {page.target} 301\n"


class _NginxMaps:
    """The lines of two maps, in temporary files because the sizes come first.

    nginx ignores the case of keys, and refuses two equal ones. A slash at the end is not part of
    them. `$` can only be written as `%24` in a value.
    """

    def __init__(self) -> None:
        self._keys = KeySet()
        self._longest = 0
        self._count = 0
        self._by_path: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by write()
        self._by_id: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by write()

    def add(self, page: OldPage) -> None:
        path, mark, query = page.path.partition("?")
        decoded = unquote_to_bytes(path)
        key = (decoded.rstrip(b"/") or b"/") + mark.encode() + query.encode()
        if b"\0" in key or not self._keys.add(sha256(key.lower()).digest()):
            return
        self._longest = max(self._longest, len(key))
        self._count += 1
        target = page.target.replace("$", "%24").encode()
        file = self._by_id if mark else self._by_path
        file.write(b"  %b %b;\n" % (_quoted(key), _quoted(target)))

    def write(self, file: BinaryIO) -> None:
        bucket = 1 << max(7, (self._longest + 32).bit_length())
        size = 1 << max(11, (2 * self._count).bit_length())
        file.write(_NGINX_HEAD.format(bucket=bucket, size=size).encode())
        for start, body in ((_BY_PATH, self._by_path), (_BY_ID, self._by_id)):
            file.write(start.encode())
            with body:
                body.seek(0)
                shutil.copyfileobj(body, file)
            file.write(b"}\n")


def _quoted(text: bytes) -> bytes:
    """Return a string of nginx's configuration."""
    escaped = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%b"' % escaped.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")


_NGINX_HEAD = """\
# Redirects from the addresses of the old site. Include this file in `http`. Add this line to the
# `server` of the old site:
#   if ($old_page_target) {{ return 301 $old_page_target; }}
# Remove these two lines if your configuration has such lines with higher values.
map_hash_bucket_size {bucket};
map_hash_max_size {size};

map $uri $old_page {{
  default $uri;
  "~^(?<old_page_without_slash>/.*[^/])/+$" $old_page_without_slash;
}}
map "$arg_p:$arg_page_id" $old_page_id {{
  default "";
  "~^(?<old_page_p>[0-9]+):" "p=$old_page_p";
  "~^:(?<old_page_number>[0-9]+)$" "page_id=$old_page_number";
}}
map $old_page_by_id $old_page_target {{
  default $old_page_by_id;
  "" $old_page_by_path;
}}
"""
_BY_PATH = 'map $old_page $old_page_by_path {\n  default "";\n'
_BY_ID = 'map "$old_page?$old_page_id" $old_page_by_id {\n  default "";\n'

_FORMATS: Mapping[str, MapFormat] = {
    ".conf": MapFormat.NGINX,
    ".map": MapFormat.NGINX,
    ".json": MapFormat.JSON,
}


def map_files(path: Path) -> Mapping[Path, MapFormat]:
    """Return the files to write: one by the ending of the name, otherwise one of each format."""
    if path.name.endswith("_redirects"):
        return {path: MapFormat.NETLIFY}
    if form := _FORMATS.get(path.suffix.lower()):
        return {path: form}
    return {
        path.with_name(f"{path.name}.conf"): MapFormat.NGINX,
        path.with_name(f"{path.name}_redirects"): MapFormat.NETLIFY,
        path.with_name(f"{path.name}.json"): MapFormat.JSON,
    }


async def write_maps(
    database: Database,
    files: Mapping[BinaryIO, MapFormat],
    *,
    sources: Sequence[str] | None = None,
    site: str = "",
) -> int:
    """Write the redirects of these sources, or of all, to open files; return their number."""
    writers = [MapWriter(file, form) for file, form in files.items()]
    count = 0
    async for page in read_redirects(database, sources=sources, site=site):
        count += 1
        for writer in writers:
            writer.add(page)
    for writer in writers:
        writer.close()
    return count
