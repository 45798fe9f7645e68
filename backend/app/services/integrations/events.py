"""Reading and deleting events, which database triggers write (migration 0033).

A reader keeps the position of the last event that it has read. An event becomes readable when all
transactions up to its own have ended, so no later one has a lower position. One long transaction
therefore delays the events of all that began after it.
"""

from datetime import timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import BigInteger, CursorResult, Integer, bindparam, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.logging import get_logger
from app.db.reading import Reader
from app.db.session import Database
from app.models.integrations.event import HAPPENED, Event
from app.services.purging import Batch, delete_oldest, lowest

logger = get_logger(__name__)

RETENTION = timedelta(days=14)
"""How long an event is kept: longer than deliveries are retried."""


class Position(NamedTuple):
    """The position of an event in the order of reading."""

    xid: int = 0
    id: int = 0


_EVENT = (
    Event.id,
    Event.xid,
    Event.kind,
    Event.article_id,
    Event.comment_id,
    Event.user_id,
    Event.media_id,
    Event.is_public,
    Event.occurred_at,
    Event.data,
)
IS_AFTER = tuple_(Event.xid, Event.id) > tuple_(
    bindparam("xid", type_=BigInteger), bindparam("id", type_=BigInteger)
)
"""Whether an event is after a position. Parameters: `xid`, `id`."""
AFTER = (
    select(*_EVENT)
    .where(IS_AFTER, HAPPENED)
    .order_by(Event.xid, Event.id)
    .limit(bindparam("limit", type_=Integer))
)
"""The events after a position, in the order of reading. Parameters: `xid`, `id`, `limit`."""
LATEST = (
    select(Event.xid, Event.id).where(HAPPENED).order_by(Event.xid.desc(), Event.id.desc()).limit(1)
)
"""The position of the latest readable event."""


async def latest_position(reader: Reader | AsyncSession) -> Position:
    """Return the position of the latest readable event."""
    row = (await reader.execute(LATEST)).one_or_none()
    return Position() if row is None else Position(row.xid, row.id)


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of old events; return how many.

    It examines only the events with the lowest ids: there is no index of their times.
    """
    old = Event.occurred_at < clock.now() - RETENTION
    return await delete_oldest(
        session, batch, Event.id, old, lowest(batch, Event.id), order_by=Event.id
    )


_SET_POSITIONS = text("""
    UPDATE webhooks SET event_xid = 0, event_id = coalesce(
      (SELECT min(id) - 1 FROM events WHERE (xid, id) > (event_xid, event_id)),
      (SELECT max(id) FROM events), 0
    )
""")
_FORGET = text("UPDATE events SET xid = 0 WHERE xid <> 0")
_ARE_FOREIGN = text("""
    SELECT EXISTS (SELECT FROM events WHERE xid >= next) OR EXISTS (
      SELECT FROM webhooks WHERE event_xid >= next
    ) FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) AS snapshot
""")


async def forget_transactions(database: Database) -> int:
    """Move all events before those of later transactions; return how many.

    After a restore into a new cluster, the numbers of transactions begin again. Readers would miss
    all events until they are as high as before. Events that webhooks have not read yet are read,
    some of them perhaps twice.
    """
    async with database.unit_of_work() as session:
        await session.execute(_SET_POSITIONS)
        moved = await session.execute(_FORGET)
    return cast("CursorResult[Any]", moved).rowcount


async def forget_foreign_transactions(database: Database) -> None:
    """Call `forget_transactions` if there are numbers that this cluster has not reached.

    They are those of another cluster, after its dump was loaded into this one.
    """
    if await database.primary.scalar(_ARE_FOREIGN):
        moved = await forget_transactions(database)
        logger.warning(f"events of another PostgreSQL cluster were reordered: {moved}")
