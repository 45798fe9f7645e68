"""Sitemaps (sitemaps.org), split into parts for large sites.

A part contains the articles in a range of ids. It never exceeds MAX_URLS, and a change of an
article affects one part only. Memory use is bounded by one part.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

from sqlalchemy import BigInteger, bindparam, func, literal, select

from app.core import clock
from app.core.errors import NotFound
from app.db.reading import Reader
from app.models.articles.article import Article
from app.schemas.types import MAX_ID
from app.services.articles.addresses import article_url_parts
from app.services.articles.rows import PUBLIC
from app.services.feeds.addresses import api_url, home_url
from app.services.feeds.contents import LAST_CHANGE

MAX_URLS = 50_000
MAX_PARTS = 50_000
BATCH = 2000
"""Rows per statement; other requests can run between two statements."""

_DECLARATION = "<?xml version='1.0' encoding='utf-8'?>\n"
_NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


class Sitemap(NamedTuple):
    """A sitemap file, and the last public change of any article; None if there is none."""

    body: bytes
    modified_at: datetime | None


# Uses an index-only scan of the partial index.
_COUNT = select(func.count()).select_from(
    select(literal(1)).select_from(Article).where(PUBLIC).limit(MAX_URLS + 1).subquery()
)
_URLS = (
    select(Article.id, Article.slug, func.greatest(Article.updated_at, Article.published_at))
    .where(
        PUBLIC,
        Article.id > bindparam("after", type_=BigInteger),
        Article.id <= bindparam("last", type_=BigInteger),
    )
    .order_by(Article.id)
    .limit(BATCH)
)
_part = ((Article.id - 1) // MAX_URLS).label("number")
_first_part = select(_part).where(PUBLIC).order_by(Article.id).limit(1)
_parts = select(_first_part.scalar_subquery().label("number")).cte("parts", recursive=True)
_next = _first_part.where(Article.id > (_parts.c.number + 1) * MAX_URLS).correlate(_parts)
_numbers = _parts.union_all(select(_next.scalar_subquery()).where(_parts.c.number.is_not(None)))
_PARTS = select(_numbers.c.number).where(_numbers.c.number.is_not(None)).limit(MAX_PARTS)
"""The numbers of non-empty parts, found by skipping from part to part in the index."""


async def build_sitemap(reader: Reader) -> Sitemap:
    """Return a sitemap of all public articles, or an index of its parts for large sites."""
    changed_at = await reader.scalar(
        LAST_CHANGE
    )  # read first: later changes are then newer than this date
    now = clock.now()
    if (await reader.scalar(_COUNT, {"now": now}) or 0) <= MAX_URLS:
        urls = await _urls(reader, after=0, last=MAX_ID, now=now)
        # The schema requires at least one URL.
        return Sitemap(
            _urlset(urls or [f"<url><loc>{escape(home_url())}</loc></url>\n"]), changed_at
        )
    numbers = await reader.scalars(_PARTS, {"now": now})
    parts = [
        f"<sitemap><loc>{escape(api_url(f'/sitemaps/{number + 1}.xml'))}</loc></sitemap>\n"
        for number in numbers
    ]
    index = f"{_DECLARATION}<sitemapindex {_NAMESPACE}>\n{''.join(parts)}</sitemapindex>\n"
    return Sitemap(index.encode(), changed_at)


async def build_sitemap_part(reader: Reader, *, number: int) -> Sitemap:
    """Return a part of the sitemap, numbered from 1. Raises NotFound if it is empty."""
    changed_at = await reader.scalar(LAST_CHANGE)
    last = number * MAX_URLS
    urls = await _urls(reader, after=last - MAX_URLS, last=last, now=clock.now())
    if not urls:
        raise NotFound
    return Sitemap(_urlset(urls), changed_at)


def _urlset(urls: Sequence[str]) -> bytes:
    return f"{_DECLARATION}<urlset {_NAMESPACE}>\n{''.join(urls)}</urlset>\n".encode()


async def _urls(reader: Reader, *, after: int, last: int, now: datetime) -> Sequence[str]:
    """Return a `<url>` element for each article, at most MAX_URLS."""
    prefix, suffix = map(escape, article_url_parts())
    elements: list[str] = []
    while len(elements) < MAX_URLS:
        rows = (await reader.execute(_URLS, {"after": after, "last": last, "now": now})).all()
        elements += [
            f"<url><loc>{prefix}{quote(slug, '')}{suffix}</loc>"
            f"<lastmod>{moment.isoformat(timespec='seconds')}</lastmod></url>\n"
            for _, slug, moment in rows
        ]
        if len(rows) < BATCH:
            break
        after = rows[-1].id
    return elements


def robots() -> bytes:
    """Return robots.txt (RFC 9309): allow everything, and name the sitemap."""
    return f"User-agent: *\nAllow: /\n\nSitemap: {api_url('/sitemap.xml')}\n".encode()
