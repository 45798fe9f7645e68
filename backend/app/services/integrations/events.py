"""Reading and deleting events, which database triggers write (migration 0033).

A reader keeps the position of the last event that it has read. An event becomes readable when all
transactions up to its own have ended, so no later one has a lower position. One long transaction
therefore delays the events of all that began after it.
"""

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, Integer, bindparam, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.db.reading import Reader
from app.models.integrations.event import HAPPENED, Event
from app.services.purging import Batch, delete_oldest

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
AFTER = (
    select(*_EVENT)
    .where(
        tuple_(Event.xid, Event.id)
        > tuple_(bindparam("xid", type_=BigInteger), bindparam("id", type_=BigInteger)),
        HAPPENED,
    )
    .order_by(Event.xid, Event.id)
    .limit(bindparam("limit", type_=Integer))
)
"""The events after a position, in the order of reading. Parameters: `xid`, `id`, `limit`."""
_LATEST = (
    select(Event.xid, Event.id).where(HAPPENED).order_by(Event.xid.desc(), Event.id.desc()).limit(1)
)


async def latest_position(reader: Reader | AsyncSession) -> Position:
    """Return the position of the latest readable event."""
    row = (await reader.execute(_LATEST)).one_or_none()
    return Position() if row is None else Position(row.xid, row.id)


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of old events; return how many.

    It examines only the events with the lowest ids: there is no index of their times.
    """
    next_id = select(Event.id).order_by(Event.id).offset(batch.limit).limit(1).scalar_subquery()
    return await delete_oldest(
        session,
        batch,
        Event.id,
        Event.occurred_at < clock.now() - RETENTION,
        Event.id < func.coalesce(next_id, 2**63 - 1),
        order_by=Event.id,
    )
