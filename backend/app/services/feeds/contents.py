"""The contents of feeds: the newest public articles of the site, an author or a tag."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from sqlalchemy import Select, String, bindparam, case, func, select

from app.core import clock
from app.core.config import get_settings
from app.core.errors import TagNotFound, UserNotFound
from app.db.reading import Reader
from app.db.selection import Selection
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.articles.change import Change
from app.models.articles.tag import ArticleTag, Tag
from app.services.articles.addresses import article_url
from app.services.articles.rows import ARTICLE_FIELDS, NOW, PUBLIC, public_name
from app.services.feeds import addresses
from app.services.feeds.addresses import absolute_url

MAX_ITEMS = 20
MAX_HTML_BYTES = 200_000
"""Longer HTML is replaced by the excerpt, to limit the size of a feed."""


class Item(NamedTuple):
    """An article in a feed."""

    id: int
    slug: str
    title: str
    excerpt: str
    cover_image_url: str | None
    language: str
    published_at: datetime
    updated_at: datetime
    tags: Sequence[str]
    html: str | None
    """None if it exceeds MAX_HTML_BYTES."""
    username: str
    author: str

    @property
    def page(self) -> str:
        """The front end's URL of the article."""
        return article_url(self.slug)

    @property
    def cover(self) -> str | None:
        """The absolute URL of the cover image."""
        return absolute_url(self.cover_image_url) if self.cover_image_url else None

    @property
    def changed_at(self) -> datetime:
        """The later of the last change and the publication."""
        return max(self.updated_at, self.published_at)


class Feed(NamedTuple):
    """A feed, independent of its format."""

    title: str
    page: str
    """The front end's URL of the same list."""
    path: str
    """The feed's path in this API, without the last segment, which depends on the format."""
    items: Sequence[Item]
    modified_at: datetime | None
    """The last public change of any article; None if there is none."""

    @property
    def changed_at(self) -> datetime:
        """The last change of an article in the feed."""
        return max((item.changed_at for item in self.items), default=datetime.fromtimestamp(0, UTC))


_COLUMNS = {
    **ARTICLE_FIELDS,
    "html": case((func.octet_length(Article.html) <= MAX_HTML_BYTES, Article.html)),
    "username": User.username,
    "author": User.name,
}
_ITEM = Selection(lambda values: Item(**values), {field: _COLUMNS[field] for field in Item._fields})
_ITEMS = (
    select(*_ITEM.columns).join(User, Article.author_id == User.id).where(PUBLIC).limit(MAX_ITEMS)
)
_BY_DATE = _ITEMS.order_by(Article.dated_at.desc(), Article.id.desc())
_OF_AUTHOR = _BY_DATE.where(Article.author_id == bindparam("author_id"))
_WITH_TAG = (
    _ITEMS.join(ArticleTag, ArticleTag.article_id == Article.id)
    .where(ArticleTag.tag_id == bindparam("tag_id"), ArticleTag.listed_at <= NOW)
    .order_by(ArticleTag.listed_at.desc(), ArticleTag.article_id.desc())
)

LAST_CHANGE = select(Change.occurred_at).order_by(Change.seq.desc()).limit(1)
"""Includes deleted articles, which the dates of the remaining ones do not show."""
_AUTHOR = select(User.id, User.username, User.name, LAST_CHANGE.scalar_subquery()).where(
    func.lower(User.username) == func.lower(bindparam("username", type_=String))
)
_TAG = select(Tag.id, Tag.slug, public_name(Tag), LAST_CHANGE.scalar_subquery()).where(
    Tag.slug == bindparam("slug", type_=String)
)


async def site_feed(reader: Reader) -> Feed:
    """Return the site's newest articles."""
    # Read the date first: the items may then be newer than it, never older.
    changed_at = await reader.scalar(LAST_CHANGE)
    items = await _items(reader, _BY_DATE, {})
    title = get_settings().site_title
    return Feed(title, addresses.home_url(), "", items, _modified_at(items, changed_at))


async def author_feed(reader: Reader, *, username: str) -> Feed:
    """Return an author's newest articles. Raises UserNotFound."""
    found = (await reader.execute(_AUTHOR, {"username": username})).one_or_none()
    if found is None:
        raise UserNotFound
    author_id, username, name, changed_at = found
    items = await _items(reader, _OF_AUTHOR, {"author_id": author_id})
    path, page = f"/authors/{quote(username, '')}", addresses.author_url(username)
    return Feed(_title(name), page, path, items, _modified_at(items, changed_at))


async def tag_feed(reader: Reader, *, slug: str) -> Feed:
    """Return a tag's newest articles. Raises TagNotFound if none is public."""
    found = (await reader.execute(_TAG, {"slug": slug, "now": clock.now()})).one_or_none()
    if found is None:
        raise TagNotFound
    tag_id, slug, name, changed_at = found
    items = await _items(reader, _WITH_TAG, {"tag_id": tag_id})
    if not items:  # do not reveal the tags of drafts
        raise TagNotFound
    path, page = f"/tags/{quote(slug, '')}", addresses.tag_url(slug)
    return Feed(_title(name), page, path, items, _modified_at(items, changed_at))


async def _items(
    reader: Reader, statement: Select[Any], parameters: Mapping[str, int]
) -> Sequence[Item]:
    rows = await reader.execute(statement, {**parameters, "now": clock.now()})
    return [_ITEM.read(row) for row in rows]


def _title(name: str) -> str:
    return f"{name} · {get_settings().site_title}"


def _modified_at(items: Sequence[Item], changed_at: datetime | None) -> datetime | None:
    """Return when the feed last changed.

    A scheduled article that is due appears before the change feed announces it.
    """
    moments = [item.published_at for item in items[:1]] + ([changed_at] if changed_at else [])
    return max(moments, default=None)
