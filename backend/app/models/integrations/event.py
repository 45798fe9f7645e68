"""Events: what happened to articles, comments, users and media.

Database triggers write them (migration 0033) in the transaction of the change, and notify the
channel EVENTS_CHANNEL. See docs/decisions/0065-events-and-webhooks.md.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Index, String, cast, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey

EVENTS_CHANNEL = "pressroom_events"
"""The channel that is notified once by each transaction with events. The payload is empty."""


class Event(Base):
    """An event. Its columns have no foreign keys, because it outlives its subject.

    Events are read in the order of `xid` and `id`, up to HAPPENED. Later ones have a higher
    position, so that a reader misses none that commits later.
    """

    __tablename__ = "events"

    id: Mapped[PrimaryKey]
    xid: Mapped[int] = mapped_column(
        BigInteger, server_default=text("((pg_current_xact_id())::text)::bigint")
    )
    """The transaction."""
    kind: Mapped[str] = mapped_column(String(30))
    """A value of EventKind."""
    article_id: Mapped[int | None] = mapped_column(BigInteger)
    comment_id: Mapped[int | None] = mapped_column(BigInteger)
    user_id: Mapped[int | None] = mapped_column(BigInteger)
    """The author of the article or comment, the owner of the image, or the user."""
    media_id: Mapped[int | None] = mapped_column(BigInteger)
    is_public: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether readers see its subject, or saw it before."""
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """What filters and payloads need. Never texts, secrets or email addresses."""


Index("ix_events_position", Event.xid, Event.id)

HORIZON: ColumnElement[int] = cast(
    cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), String), BigInteger
)
"""All transactions below it have ended."""
HAPPENED: ColumnElement[bool] = Event.xid < HORIZON
"""Whether all transactions up to that of the event have ended."""
