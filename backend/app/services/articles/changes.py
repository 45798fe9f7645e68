"""The change feed: publicly visible changes of articles, in commit order.

Database triggers write it (migration 0003), whichever client changes an article. Sequence numbers
become visible in ascending order, also on replicas. All later entries therefore have a higher
number than any entry already read.

A restore takes entries back, and later ones get their numbers again. So it sets a new generation,
which is part of the signature of cursors: those from before are refused.
"""

from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

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
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from app.core import clock
from app.db.reading import Reader
from app.db.selection import Selection, fields_of
from app.db.session import NO_KEY_UPDATE, Database
from app.models.articles.article import Article
from app.models.articles.change import Change
from app.models.bulk import Installation
from app.schemas.articles.change import LATEST, ChangeResponse, ChangesQuery
from app.services.pages.cursors import decode_cursor, encode_cursor
from app.services.pages.paging import ListPage
from app.services.purging import sweep

CURSOR_KIND = "changes"
BATCH = 200
RETENTION = timedelta(days=30)
"""How long an entry is kept after a later entry for the same article."""


_CHANGE = Selection(dict, fields_of(ChangeResponse, Change, cursor=Change.seq))
_AFTER = (
    select(*_CHANGE.columns)
    .where(Change.seq > bindparam("after", type_=BigInteger))
    .order_by(Change.seq)
    .limit(bindparam("limit", type_=Integer))
)
_LAST = select(Change.seq).order_by(Change.seq.desc()).limit(1)
_GENERATION = select(Installation.generation)
_NEW_ROW = insert(Installation).values(
    id=1, uuid=bindparam("uuid"), generation=bindparam("generation")
)
_BEGIN_GENERATION = _NEW_ROW.on_conflict_do_update(
    index_elements=[Installation.id], set_={"generation": _NEW_ROW.excluded.generation}
)


async def read_generation(reader: Reader) -> UUID | None:
    """Return the generation of the cursors; None before the first restore."""
    generation: UUID | None = await reader.scalar(_GENERATION)
    return generation


async def read_last(reader: Reader) -> int:
    """Return the number of the last entry; 0 without entries."""
    return await reader.scalar(_LAST) or 0


async def read_after(
    reader: Reader, *, after: int, limit: int, generation: UUID | None
) -> list[tuple[int, ChangeResponse]]:
    """Return the next entries after a number, with their numbers."""
    rows = await reader.execute(_AFTER, {"after": after, "limit": limit})
    return [(row.cursor, _read(_CHANGE.read(row), generation)) for row in rows]


async def list_changes(reader: Reader, *, query: ChangesQuery) -> ListPage[ChangeResponse]:
    """Return the entries after a cursor, or from the beginning; `next` is always set.

    Raises InvalidCursor, also for cursors from before a restore.
    """
    generation = await read_generation(reader)
    if query.cursor == LATEST:
        return ListPage([], next=encode_position(await read_last(reader), generation))
    after = decode_position(query.cursor, generation)
    found = await read_after(reader, after=after, limit=query.limit, generation=generation)
    changes = [change for _, change in found]
    # Sign the cursor again even without new entries, so that it uses the current key.
    last = changes[-1].cursor if changes else encode_position(after, generation)
    return ListPage(changes, next=last)


def _read(values: dict[str, Any], generation: UUID | None) -> ChangeResponse:
    return ChangeResponse(**values | {"cursor": encode_position(values["cursor"], generation)})


def encode_position(seq: int, generation: UUID | None) -> str:
    """Return the cursor after the entry with this number."""
    return encode_cursor(_kind(generation), [seq])


def decode_position(cursor: str, generation: UUID | None) -> int:
    """Return the number in a cursor; 0 for the beginning. Raises InvalidCursor."""
    if not cursor:
        return 0
    (seq,) = decode_cursor(cursor, _kind(generation))
    return cast("int", seq)  # the cursor is signed, so the type is known


def _kind(generation: UUID | None) -> str:
    """Return the kind of cursors. Before the first restore, it is that of earlier releases."""
    return CURSOR_KIND if generation is None else f"{CURSOR_KIND} {generation}"


async def begin_generation(database: Database) -> int:
    """Refuse all cursors of before, because a backup was restored. Return 1.

    Clients then start again. Backends must not run meanwhile.
    """
    async with database.autocommit() as connection:
        await connection.execute(_BEGIN_GENERATION, {"uuid": uuid4(), "generation": uuid4()})
    return 1


# Use the earlier of two clocks. The application's clock determines visibility; the trigger uses the
# database's.
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
# Not an edit: `version` and `updated_at` stay the same.
_ANNOUNCE = (
    update(Article)
    .where(Article.id == _DUE.c.id)
    .values(awaits_publication=False, updated_at=Article.updated_at)
    .execution_options(synchronize_session=False)
)


async def announce_due(database: Database) -> int:
    """Announce scheduled articles that are due; return how many. Several processes may run this.

    Their visibility does not depend on it. Locked articles are skipped: the update that holds the
    lock announces them.
    """
    total, count = 0, BATCH
    while count == BATCH:
        async with database.autocommit() as connection:
            done = await connection.execute(_ANNOUNCE, {"now": clock.now()})
        count = cast("CursorResult[Any]", done).rowcount
        total += count
    return total


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


async def purge(database: Database) -> int:
    """Delete old entries that a later one supersedes; each article keeps its last. Return how many.

    A client that has not read a deleted entry yet still reads the later one.
    """
    cutoff = {"cutoff": clock.now() - RETENTION}
    return await sweep(database, Change.seq, _EXAMINE, cutoff)
