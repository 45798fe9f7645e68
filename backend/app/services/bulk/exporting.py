"""Exporting: articles as the records that an import takes, in batches of bounded size."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Integer, Row, Select, bindparam, func, select, true

from app.auth.identity import Identity, recheck
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.errors import NotAuthorized, PressroomError
from app.core.streams import Deadline
from app.db.session import Database
from app.models.article import Article
from app.models.user import User
from app.services.articles.rows import NOT_DELETED, columns

BATCH = 200
BATCH_BYTES = 1024 * 1024
"""Of content: a batch holds the article that passes it, and no more."""

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


def _batch(*, own: bool) -> Select[Any]:
    """The next articles by id, as many as fit; the sizes are known without reading the texts."""
    whose = Article.author_id == bindparam("author_id", type_=BigInteger) if own else true()
    after = bindparam("after", type_=BigInteger)
    limit = bindparam("limit", type_=Integer)
    size = func.octet_length(Article.content).label("size")
    following = (
        select(Article.id, size)
        .where(NOT_DELETED, whose, Article.id > after)
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
            User.username,
            *columns(_FIELDS),
        )
        .join(sized, sized.c.id == Article.id)
        .join(User, User.id == Article.author_id)
        .where(sized.c.before < bindparam("bytes", type_=BigInteger))
        .order_by(Article.id)
    )


_OTHER_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_ALL, _OWN = _batch(own=False), _batch(own=True)
_COUNT = select(func.count()).select_from(Article).where(NOT_DELETED)


async def export_articles(
    database: Database, *, viewer: Identity | None
) -> AsyncIterator[list[dict[str, Any]]]:
    """All articles that `viewer` may write, drafts among them, as records: their own, or all.

    None is the operator. What is in the trash is left out. A connection is held for as long as a
    batch is read, not for as long as somebody takes to receive it.

    Before a batch is handed out, `viewer` is read again: raises InvalidToken where their access was
    withdrawn meanwhile, NotAuthorized where they may see less than when the export began.
    """
    everything = viewer is None or may_on_any(viewer, Action.READ_DRAFT)
    statement = _ALL if everything else _OWN
    parameters: dict[str, Any] = {"after": 0, "limit": BATCH, "bytes": BATCH_BYTES}
    if viewer is not None and not everything:
        parameters["author_id"] = viewer.id
    while True:
        parameters["now"] = clock.now()
        rows = await database.reader.execute(statement, parameters)
        if viewer is not None:
            async with database.autocommit() as primary:
                viewer = await recheck(primary, viewer)
            if everything and not may_on_any(viewer, Action.READ_DRAFT):
                raise NotAuthorized("You may no longer export the articles of others")
        if not rows:
            return
        yield [_record(row) for row in rows]
        parameters["after"] = rows[-1].id


async def count_articles(database: Database) -> int:
    """How many there are to export for the operator."""
    return await database.reader.scalar(_COUNT) or 0


async def export_lines(
    database: Database, *, viewer: Identity | None, deadline: Deadline | None = None
) -> AsyncIterator[bytes]:
    """The same as NDJSON, until `deadline`.

    An export that fails says so in a last line, `{"error": …}`, and then raises the error, which
    breaks the connection: nobody takes a part for the whole.
    """
    try:
        async for records in export_articles(database, viewer=viewer):
            if deadline is not None:
                deadline.check()
            yield b"".join(map(line, records))
    except PressroomError as error:
        yield line({"error": error.detail})
        raise


def line(record: dict[str, Any]) -> bytes:
    """A record as a line of NDJSON, whatever the reader takes for the end of one."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_OTHER_BREAKS).encode() + b"\n"


def _record(row: Row[Any]) -> dict[str, Any]:
    """The record of an article, without what is as it is where a record does not say."""
    record = {
        "title": row.title,
        "slug": row.slug,
        "content": row.content,
        "excerpt": row.excerpt if row.own_excerpt else None,
        "cover_image_url": row.cover_image_url,
        "language": row.language,
        "tags": list(row.tags_in_order),
        "published_at": _moment(row.published_at),
        "archived": row.archived_at is not None,
        "created_at": _moment(row.created_at),
        "updated_at": _moment(row.updated_at),
        "author": row.username,
    }
    return {name: value for name, value in record.items() if value not in (None, [], False)}


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
