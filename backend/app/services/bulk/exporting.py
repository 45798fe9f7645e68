"""Export of articles as import records, in batches of bounded size."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Integer, Row, Select, bindparam, func, select, true

from app.auth.identity import Identity, recheck
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.enums import CommentPolicy
from app.core.errors import NotAuthorized, PressroomError
from app.core.streams import Deadline
from app.db.session import Database
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.services.articles.rows import NOT_DELETED, article_fields
from app.services.bulk.comments import exported_comments, in_parts
from app.services.bulk.statements import COMMENT_BYTES, EXPORTED_COMMENTS

BATCH = 200
BATCH_BYTES = 1024 * 1024
"""Content bytes of a batch. The article that exceeds the limit is the last one in the batch."""

_FIELDS = (
    "title",
    "slug",
    "content",
    "cover_image_url",
    "language",
    "tags_in_order",
    "published_at",
    "created_at",
    "updated_at",
)


def _batch_query(*, own_only: bool) -> Select[Any]:
    """Select the next articles by id, up to the batch size, without reading texts for the sizes."""
    is_author = Article.author_id == bindparam("author_id", type_=BigInteger)
    condition = is_author if own_only else true()
    after = bindparam("after", type_=BigInteger)
    limit = bindparam("limit", type_=Integer)
    size = func.octet_length(Article.content).label("size")
    following = (
        select(Article.id, size)
        .where(NOT_DELETED, condition, Article.id > after)
        .order_by(Article.id)
        .limit(limit)
        .subquery()
    )
    total = func.sum(following.c.size).over(order_by=following.c.id) - following.c.size
    sized = select(following.c.id, total.label("before")).subquery()
    return (
        select(
            Article.id,
            Article.excerpt,
            Article.own_excerpt,
            Article.archived_at,
            Article.imported,
            Article.comment_policy,
            User.username,
            *article_fields(_FIELDS).columns,
        )
        .join(sized, sized.c.id == Article.id)
        .join(User, User.id == Article.author_id)
        .where(sized.c.before < bindparam("bytes", type_=BigInteger))
        .order_by(Article.id)
    )


_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_ALL_ARTICLES, _OWN_ARTICLES = _batch_query(own_only=False), _batch_query(own_only=True)
_COUNT = select(func.count()).select_from(Article).where(NOT_DELETED)


async def export_articles(
    database: Database, *, viewer: Identity | None
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield batches of records of all articles that `viewer` may edit, including drafts.

    None stands for the operator, who exports all articles. Articles in the trash are excluded. A
    database connection is held only while a batch is read, not while the client receives it.

    Before each batch, `viewer` is checked again. Raises InvalidToken if their access was withdrawn,
    and NotAuthorized if their permissions were reduced during the export.
    """
    is_unrestricted = viewer is None or may_on_any(viewer, Action.READ_DRAFT)
    statement = _ALL_ARTICLES if is_unrestricted else _OWN_ARTICLES
    parameters: dict[str, Any] = {"after": 0, "limit": BATCH, "bytes": BATCH_BYTES}
    if viewer is not None and not is_unrestricted:
        parameters["author_id"] = viewer.id
    while True:
        parameters["now"] = clock.now()
        rows = await database.reader.execute(statement, parameters)
        if viewer is not None:
            async with database.autocommit() as primary:
                viewer = await recheck(primary, viewer)
            if is_unrestricted and not may_on_any(viewer, Action.READ_DRAFT):
                raise NotAuthorized("You may no longer export articles of other authors")
        if not rows:
            return
        async for part in _with_comments(database, rows):
            yield part
        parameters["after"] = rows[-1].id


async def _with_comments(
    database: Database, rows: Sequence[Row[Any]]
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the records of articles in parts, so that their comments are of bounded size.

    An article with many comments has several records, which differ in the comments only.
    """
    ids = [row.id for row in rows]
    found = await database.reader.execute(COMMENT_BYTES, {"article_ids": ids})
    sizes = {row.article_id: row.bytes for row in found}
    part: list[Row[Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sizes.get(row.id, 0)
        if size >= BATCH_BYTES or row is rows[-1]:
            commented = [each.id for each in part if each.id in sizes]
            comments: Mapping[int, Sequence[dict[str, Any]]] = {}
            if commented:
                found = await database.reader.execute(EXPORTED_COMMENTS, {"article_ids": commented})
                comments = exported_comments(found)
            yield [
                _record(each, some) for each in part for some in in_parts(comments.get(each.id, ()))
            ]
            part, size = [], 0


async def count_articles(database: Database) -> int:
    """Return the number of articles that the operator exports."""
    return await database.reader.scalar(_COUNT) or 0


async def export_lines(
    database: Database, *, viewer: Identity | None, deadline: Deadline | None = None
) -> AsyncIterator[bytes]:
    """Yield the export as NDJSON, until `deadline`.

    A failed export ends with the line `{"error": …}` and raises the error. This closes the
    connection, so that the client notices the incomplete export.
    """
    try:
        async for records in export_articles(database, viewer=viewer):
            if deadline is not None:
                deadline.check()
            yield b"".join(map(to_line, records))
    except PressroomError as error:
        yield to_line({"error": str(error)})
        raise


def to_line(record: dict[str, Any]) -> bytes:
    """Return a record as a line of NDJSON, with all Unicode line breaks escaped."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_LINE_BREAKS).encode() + b"\n"


def _record(row: Row[Any], comments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the record of an article, without fields that have their default value."""
    record = {
        "title": row.title,
        "slug": row.slug,
        "content": row.content,
        "excerpt": row.excerpt if row.own_excerpt else None,
        "cover_image_url": row.cover_image_url,
        "language": row.language,
        "tags": list(row.tags_in_order),
        "published_at": _timestamp(row.published_at),
        "archived": row.archived_at is not None,
        "created_at": _timestamp(row.created_at),
        "updated_at": _timestamp(row.updated_at),
        "imported": row.imported,
        "author": row.username,
        "comment_policy": None if row.comment_policy == CommentPolicy.OPEN else row.comment_policy,
        "comments": list(comments),
    }
    return {name: value for name, value in record.items() if value not in (None, [], False)}


def _timestamp(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value else None
