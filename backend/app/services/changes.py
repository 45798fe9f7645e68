"""The change feed: what readers would notice of each article, in commit order.

Triggers of the database write it (migration 0003), whoever changes an article. The numbers of the
entries appear in their order, on a replica too, which replays commits in theirs: what stands behind
a number that was read is all that came later.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    CursorResult,
    DateTime,
    Integer,
    and_,
    bindparam,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.orm import aliased

from app.core import clock
from app.db.reading import Reader
from app.db.session import NO_KEY_UPDATE, Database
from app.models.article import Article
from app.models.change import Change
from app.schemas.change import LATEST, ChangesQuery
from app.services.cursors import decode_cursor, encode_cursor
from app.services.paging import Listed
from app.services.purging import sweep

KIND = "changes"
BATCH = 200
KEPT_FOR = timedelta(days=30)
"""How long an entry stays that a later one of the same article has overtaken."""


class ChangeRow(NamedTuple):
    """An entry with its place; the fields of ChangeResponse."""

    cursor: str
    kind: str
    article_id: int
    slug: str
    occurred_at: datetime


_BEHIND = (
    select(Change.seq, Change.kind, Change.article_id, Change.slug, Change.occurred_at)
    .where(Change.seq > bindparam("after", type_=BigInteger))
    .order_by(Change.seq)
    .limit(bindparam("limit", type_=Integer))
)
_LAST = select(Change.seq).order_by(Change.seq.desc()).limit(1)


async def list_changes(connection: Reader, *, query: ChangesQuery) -> Listed[ChangeRow]:
    """The changes behind a cursor, or from the beginning; `next` is there whether or not there are.

    Raises InvalidCursor.
    """
    if query.cursor == LATEST:
        return Listed([], next=_cursor(await connection.scalar(_LAST) or 0))
    after = _place(query.cursor)
    rows = await connection.execute(_BEHIND, {"after": after, "limit": query.limit})
    changes = [ChangeRow(_cursor(row.seq), *row[1:]) for row in rows]
    # Made anew where nothing has happened, too: with the key that is in use now.
    return Listed(changes, next=changes[-1].cursor if changes else _cursor(after))


def _cursor(seq: int) -> str:
    return encode_cursor(KIND, [seq])


def _place(cursor: str) -> int:
    if not cursor:
        return 0
    (seq,) = decode_cursor(cursor, KIND)
    return cast("int", seq)  # it is signed: we made it


# By the earlier of two clocks: the application's says whether readers see the article, the
# database's whether the trigger takes it for visible.
_DUE = (
    select(Article.id)
    .where(
        Article.awaits_publication,
        Article.published_at
        <= func.least(func.now(), bindparam("now", type_=DateTime(timezone=True))),
    )
    .order_by(Article.published_at)
    .limit(BATCH)
    .with_for_update(skip_locked=True, **NO_KEY_UPDATE)
    .cte("due")
)
# Neither a new version nor a later `updated_at`: nobody has changed it.
_ANNOUNCE = (
    update(Article)
    .where(Article.id == _DUE.c.id)
    .values(awaits_publication=False, updated_at=Article.updated_at)
    .execution_options(synchronize_session=False)
)


async def announce_due(database: Database) -> None:
    """Tell of articles whose time has come; any number of processes may do so at once.

    Readers see them without this. What is locked is being changed, which tells of it as well.
    """
    count = BATCH
    while count == BATCH:
        async with database.autocommit() as connection:
            done = await connection.execute(_ANNOUNCE, {"now": clock.now()})
        count = cast("CursorResult[Any]", done).rowcount


_later = aliased(Change)
_EXAMINE = (
    select(
        Change.seq,
        and_(
            Change.occurred_at < bindparam("cutoff", type_=DateTime(timezone=True)),
            exists().where(_later.article_id == Change.article_id, _later.seq > Change.seq),
        ).label("goes"),
    )
    .where(Change.seq > bindparam("after", type_=BigInteger))
    .order_by(Change.seq)
    .limit(bindparam("limit", type_=Integer))
)


async def purge(database: Database) -> None:
    """Delete old entries that a later one has overtaken; each article's last one stays for ever.

    Whoever is behind them will come to the later one: it says what has become of the article.
    """
    await sweep(database, Change.seq, _EXAMINE, {"cutoff": clock.now() - KEPT_FOR})
