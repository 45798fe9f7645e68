"""Entries of the change feed: public changes of articles, in commit order.

Database triggers write them (migration 0003) when a transaction commits, one transaction at a time.
`seq` is therefore the order in which changes became visible. No entry appears before one that was
already read. `seq` is a timestamp in microseconds, so this also holds after a restore. See
docs/decisions for the alternatives.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class Change(Base):
    """A public change: an article was created, updated, unpublished or deleted.

    Without a foreign key, because an entry outlives its article.
    """

    __tablename__ = "changes"

    seq: Mapped[PrimaryKey]
    article_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(20))
    slug: Mapped[str] = mapped_column(String(100))
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    transaction_id: Mapped[int] = mapped_column(BigInteger)
    """Several changes in one transaction make one entry."""


Index("ix_changes_article", Change.article_id, Change.seq.desc())
