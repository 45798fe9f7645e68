"""What is in a feed: the newest articles that readers see, of all, of an author or with a tag."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from sqlalchemy import Select, String, bindparam, case, func, select

from app.core import clock
from app.core.config import get_settings
from app.core.errors import TagNotFound, UserNotFound
from app.db.reading import Reader
from app.models.article import Article
from app.models.change import Change
from app.models.tag import ArticleTag, Tag
from app.models.user import User
from app.services.articles.rows import NOW, PUBLIC, columns, public_name
from app.services.feeds import addresses
from app.services.feeds.addresses import article_page, picture

LENGTH = 20
MAX_HTML_BYTES = 200_000
"""What is longer stands in the feed as its excerpt: twenty of them would be a feed for nobody."""


class Item(NamedTuple):
    """An article as a feed has it."""

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
    """None where it is too long."""
    username: str
    author: str

    @property
    def page(self) -> str:
        """Where the front end shows it."""
        return article_page(self.slug)

    @property
    def cover(self) -> str | None:
        """Its picture's address, as a whole."""
        return picture(self.cover_image_url) if self.cover_image_url else None

    @property
    def changed_at(self) -> datetime:
        """Published later than it was written, it is news from then on."""
        return max(self.updated_at, self.published_at)


class Feed(NamedTuple):
    """A feed, whatever its format."""

    title: str
    page: str
    """Where the front end shows the same."""
    path: str
    """Where this API has it, without the last segment, which is the format's."""
    items: Sequence[Item]
    modified_at: datetime | None
    """When anything that readers see changed last, here or elsewhere; None where nothing has."""

    @property
    def changed_at(self) -> datetime:
        """When something in it did."""
        return max((item.changed_at for item in self.items), default=datetime.fromtimestamp(0, UTC))


_ITEMS = (
    select(
        *columns(Item._fields[:-3]),
        case((func.octet_length(Article.html) <= MAX_HTML_BYTES, Article.html)),
        User.username,
        User.name,
    )
    .join(User, Article.author_id == User.id)
    .where(PUBLIC)
    .limit(LENGTH)
)
_BY_DATE = _ITEMS.order_by(Article.dated_at.desc(), Article.id.desc())
_OF_AUTHOR = _BY_DATE.where(Article.author_id == bindparam("author_id"))
_WITH_TAG = (
    _ITEMS.join(ArticleTag, ArticleTag.article_id == Article.id)
    .where(ArticleTag.tag_id == bindparam("tag_id"), ArticleTag.listed_at <= NOW)
    .order_by(ArticleTag.listed_at.desc(), ArticleTag.article_id.desc())
)

LAST_CHANGE = select(Change.occurred_at).order_by(Change.seq.desc()).limit(1)
"""Also of what is gone: the dates of the articles that are left do not tell."""
_AUTHOR = select(User.id, User.username, User.name, LAST_CHANGE.scalar_subquery()).where(
    func.lower(User.username) == func.lower(bindparam("username", type_=String))
)
_TAG = select(Tag.id, Tag.slug, public_name(Tag), LAST_CHANGE.scalar_subquery()).where(
    Tag.slug == bindparam("slug", type_=String)
)


async def of_all(connection: Reader) -> Feed:
    """The newest articles."""
    # First: what is read behind it is newer than it says, never older.
    changed_at = await connection.scalar(LAST_CHANGE)
    items = await _items(connection, _BY_DATE, {})
    title = get_settings().site_title
    return Feed(title, addresses.home(), "", items, _modified_at(items, changed_at))


async def of_author(connection: Reader, *, username: str) -> Feed:
    """An author's newest articles. Raises UserNotFound."""
    found = (await connection.execute(_AUTHOR, {"username": username})).one_or_none()
    if found is None:
        raise UserNotFound
    author_id, username, name, changed_at = found
    items = await _items(connection, _OF_AUTHOR, {"author_id": author_id})
    path, page = f"/authors/{quote(username, '')}", addresses.author_page(username)
    return Feed(_title(name), page, path, items, _modified_at(items, changed_at))


async def with_tag(connection: Reader, *, slug: str) -> Feed:
    """The newest articles that have a tag. Raises TagNotFound where readers see none of it."""
    found = (await connection.execute(_TAG, {"slug": slug, "now": clock.now()})).one_or_none()
    if found is None:
        raise TagNotFound
    tag_id, slug, name, changed_at = found
    items = await _items(connection, _WITH_TAG, {"tag_id": tag_id})
    if not items:  # what drafts are about is their authors' business
        raise TagNotFound
    path, page = f"/tags/{quote(slug, '')}", addresses.tag_page(slug)
    return Feed(_title(name), page, path, items, _modified_at(items, changed_at))


async def _items(
    connection: Reader, statement: Select[Any], parameters: Mapping[str, int]
) -> Sequence[Item]:
    rows = await connection.execute(statement, {**parameters, "now": clock.now()})
    return [Item._make(row) for row in rows]


def _title(name: str) -> str:
    return f"{name} · {get_settings().site_title}"


def _modified_at(items: Sequence[Item], changed_at: datetime | None) -> datetime | None:
    """An article whose time has come is among the items before the change feed tells of it."""
    moments = [item.published_at for item in items[:1]] + ([changed_at] if changed_at else [])
    return max(moments, default=None)
