"""The sitemap (sitemaps.org), in parts where there are more articles than one may have.

A part has the articles of a range of ids: it never has too many, and what is written or deleted
changes one part alone. Its memory is that of one part, however many articles there are.
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
from app.models.article import Article
from app.schemas.types import MAX_ID
from app.services.articles.rows import PUBLIC
from app.services.feeds.addresses import around_slug, here, home
from app.services.feeds.contents import LAST_CHANGE

MAX_URLS = 50_000
MAX_PARTS = 50_000
BATCH = 2000
"""Between two, others have their turn."""

_DECLARATION = "<?xml version='1.0' encoding='utf-8'?>\n"
_NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


class Sitemap(NamedTuple):
    """A file, and when any article that readers see changed last; None where none ever has."""

    body: bytes
    modified_at: datetime | None


# From the index for readers: no row is read.
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
_first = select(_part).where(PUBLIC).order_by(Article.id).limit(1)
_parts = select(_first.scalar_subquery().label("number")).cte("parts", recursive=True)
_following = _first.where(Article.id > (_parts.c.number + 1) * MAX_URLS).correlate(_parts)
_numbers = _parts.union_all(
    select(_following.scalar_subquery()).where(_parts.c.number.is_not(None))
)
_PARTS = select(_numbers.c.number).where(_numbers.c.number.is_not(None)).limit(MAX_PARTS)
"""Which parts there are: from each to the next by its first article, past all the others."""


async def whole(connection: Reader) -> Sitemap:
    """All articles that readers see, or the index of the parts where they are too many for one."""
    changed_at = await connection.scalar(LAST_CHANGE)  # first: what comes meanwhile is newer
    now = clock.now()
    if (await connection.scalar(_COUNT, {"now": now}) or 0) <= MAX_URLS:
        urls = await _urls(connection, after=0, last=MAX_ID, now=now)
        # The schema wants one at least.
        return Sitemap(_set_of(urls or [f"<url><loc>{escape(home())}</loc></url>\n"]), changed_at)
    numbers = await connection.scalars(_PARTS, {"now": now})
    parts = [
        f"<sitemap><loc>{escape(here(f'/sitemaps/{number + 1}.xml'))}</loc></sitemap>\n"
        for number in numbers
    ]
    index = f"{_DECLARATION}<sitemapindex {_NAMESPACE}>\n{''.join(parts)}</sitemapindex>\n"
    return Sitemap(index.encode(), changed_at)


async def part(connection: Reader, *, number: int) -> Sitemap:
    """A part of the index, counted from one. Raises NotFound where it has no article."""
    changed_at = await connection.scalar(LAST_CHANGE)
    last = number * MAX_URLS
    urls = await _urls(connection, after=last - MAX_URLS, last=last, now=clock.now())
    if not urls:
        raise NotFound
    return Sitemap(_set_of(urls), changed_at)


def _set_of(urls: Sequence[str]) -> bytes:
    return f"{_DECLARATION}<urlset {_NAMESPACE}>\n{''.join(urls)}</urlset>\n".encode()


async def _urls(connection: Reader, *, after: int, last: int, now: datetime) -> Sequence[str]:
    """An element for each article, for at most MAX_URLS."""
    before, behind = map(escape, around_slug())
    written: list[str] = []
    while len(written) < MAX_URLS:
        rows = (await connection.execute(_URLS, {"after": after, "last": last, "now": now})).all()
        written += [
            f"<url><loc>{before}{quote(slug, '')}{behind}</loc>"
            f"<lastmod>{moment.isoformat(timespec='seconds')}</lastmod></url>\n"
            for _, slug, moment in rows
        ]
        if len(rows) < BATCH:
            break
        after = rows[-1].id
    return written


def robots() -> bytes:
    """robots.txt (RFC 9309): all may read all, and here is what there is."""
    return f"User-agent: *\nAllow: /\n\nSitemap: {here('/sitemap.xml')}\n".encode()
