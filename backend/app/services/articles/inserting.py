"""Insertion of articles, for both APIs, imports and example data.

A single article is a batch of one. The number of statements does not depend on the size of a batch.
Only articles with images take a few more.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    String,
    Table,
    bindparam,
    case,
    column,
    func,
    select,
    true,
)
from sqlalchemy import cast as cast_to
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by, array, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.markdown import Rendered
from app.core.config import get_settings
from app.core.enums import CommentPolicy
from app.core.errors import ServiceUnavailable
from app.db.retry import ATTEMPTS
from app.db.writing import fetch
from app.models.articles.article import Article
from app.models.articles.tag import Tag
from app.services.articles.images import mentions_media, update_media_references
from app.services.articles.rendering import rendered_columns
from app.services.articles.slugs import IsTaken, SlugRequest, assign_slugs, candidates, no_others
from app.services.articles.tagging import names_by_key


class NewArticle(NamedTuple):
    """An article to insert."""

    title: str
    content: str
    rendered: Rendered
    excerpt: str | None
    """None: derived from the content."""
    cover_image_url: str | None
    language: str | None
    """None: the default language."""
    published_at: datetime | None
    author_id: int
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    comment_policy: CommentPolicy = CommentPolicy.OPEN
    tags: Iterable[str] = ()
    """The names of its tags, which `add_tags` assigns. Their public names are stored with it."""
    slugs: Sequence[str] = ()
    """The slugs that it may get, best first. By default derived from the title."""
    imported: dict[str, Any] | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The columns of the article, except for the slugs."""
        return {
            "title": self.title,
            "content": self.content,
            **rendered_columns(self.rendered, own_excerpt=self.excerpt),
            "cover_image_url": self.cover_image_url,
            "language": self.language or get_settings().default_language,
            "comment_policy": self.comment_policy,
            "published_at": self.published_at,
            "archived_at": self.archived_at,
            "author_id": self.author_id,
            "edited_by": self.author_id,
            "edited_at": self.updated_at,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "imported": self.imported,
            "tag_keys": list(names_by_key(self.tags)),
        }

    def slug_request(self, now: datetime) -> SlugRequest:
        """Return the request for a slug."""
        names = self.slugs or candidates(self.title)
        published_at = self.published_at
        public = published_at is not None and published_at <= now and self.archived_at is None
        return SlugRequest(self.author_id, names, published_at, public)


_TABLE = cast("Table", Article.__table__)
_COLUMNS = (
    "title", "slug", "draft_slug", "content", "html", "plain_text", "toc", "rendered_with",
    "word_count", "reading_time", "excerpt", "own_excerpt", "cover_image_url", "language",
    "comment_policy", "published_at", "archived_at", "created_at", "updated_at", "author_id",
    "edited_by", "edited_at", "imported",
)  # fmt: skip


_PARAMETERS = (*_COLUMNS, "tag_keys")


def _type(name: str) -> Any:
    """Return the type of a column. Strings have no length: a cast would truncate them."""
    type_ = JSONB() if name == "tag_keys" else _TABLE.c[name].type
    return String() if isinstance(type_, String) else type_


def _array(name: str) -> ColumnElement[Any]:
    """Return the parameter with the values of a column.

    One is in a subquery, so that the estimated number of rows does not depend on the values:
    PostgreSQL then plans the statement once (see `planned_once`).
    """
    values = bindparam(name, type_=ARRAY(_type(name), dimensions=1))
    return select(values).scalar_subquery() if name == "title" else values


_rows = (
    func.unnest(*(_array(name) for name in _PARAMETERS))
    .table_valued(*(column(name, _type(name)) for name in _PARAMETERS))
    .render_derived()
)
_keys = (
    func.jsonb_array_elements_text(_rows.c.tag_keys)
    .table_valued("key", with_ordinality="position")
    .render_derived()
)
_by_slug = func.coalesce(Tag.wanted_slug, Tag.slug), Tag.key
_tags = (
    select(
        func.array_agg(aggregate_order_by(Tag.name, *_by_slug)).label("names"),
        func.array_agg(aggregate_order_by(Tag.name, _keys.c.position)).label("in_order"),
        (
            func.bool_and(Tag.is_listed)
            & (func.count() == func.jsonb_array_length(_rows.c.tag_keys))
        ).label("are_listed"),
    )
    .select_from(_keys.join(Tag, Tag.key == _keys.c.key))
    .lateral()
)


def _if_listed(names: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the names if all tags are listed. Otherwise triggers store what is right (0020)."""
    return case((_tags.c.are_listed, names), else_=cast_to(array([]), ARRAY(String)))


_INSERT = (
    insert(_TABLE)
    .from_select(
        (*_COLUMNS, "tag_names", "tag_names_in_order"),
        select(
            *(_rows.c[name] for name in _COLUMNS),
            _if_listed(_tags.c.names),
            _if_listed(_tags.c.in_order),
        ).select_from(_rows.join(_tags, true())),
        include_defaults=False,
    )
    .on_conflict_do_nothing()
    .returning(_TABLE.c.id, _TABLE.c.slug)
)


class InsertedArticle(NamedTuple):
    """The id of a new article, and the slug that its author sees."""

    id: int
    slug: str


async def insert_articles(
    session: AsyncSession,
    new: Sequence[NewArticle],
    *,
    now: datetime,
    is_taken: IsTaken = no_others,
) -> list[InsertedArticle | None]:
    """Insert articles without tags, and return them; None if all their slugs are taken.

    Call `add_media_references` and `add_tags` afterwards. This is the order of locks.

    Concurrent requests for the same slug wait for each other. The second one gets None if it
    requested this slug, otherwise another slug.
    """
    articles: list[InsertedArticle | None] = [None] * len(new)
    pending = list(range(len(new)))
    for _ in range(ATTEMPTS):  # ON CONFLICT raises no error, so that no savepoint is needed
        requests = [new[number].slug_request(now) for number in pending]
        assigned = await assign_slugs(session, requests, now=now, is_taken=is_taken)
        columns = dict(zip(pending, assigned, strict=True))
        rows = {
            number: {**new[number].values, **slugs._asdict()}
            for number, slugs in columns.items()
            if slugs is not None
        }
        if rows:
            parameters = {name: [row[name] for row in rows.values()] for name in _PARAMETERS}
            inserted = {row.slug: row.id for row in await fetch(session, _INSERT, parameters)}
            for number, row in rows.items():
                article_id = inserted.get(row["slug"])
                if article_id is not None:
                    shown = row["draft_slug"] or row["slug"]
                    articles[number] = InsertedArticle(article_id, shown)
        pending = [number for number in rows if articles[number] is None]
        if not pending:
            break
    else:
        raise ServiceUnavailable
    return articles


async def add_media_references(
    session: AsyncSession, new: Sequence[NewArticle], inserted: Sequence[InsertedArticle | None]
) -> None:
    """Add the references of new articles to images."""
    for article, inserted_article in zip(new, inserted, strict=True):
        if inserted_article is not None and mentions_media(
            article.content, article.cover_image_url
        ):
            await update_media_references(
                session,
                article_id=inserted_article.id,
                content=article.content,
                cover_image_url=article.cover_image_url,
            )
