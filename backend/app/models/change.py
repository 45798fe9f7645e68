"""The change feed's entries: what readers would notice of each article, in commit order.

Triggers of the database write them (migration 0003), when a transaction commits and one at a time:
`seq` is the order in which the changes became visible, whoever wrote them, and no entry appears
behind one that was already read. It is a moment in microseconds, too, so that none does after a
restore either. docs/decisions has the alternatives.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class Change(Base):
    """That an article was created, updated, unpublished or deleted, as readers see it.

    No foreign key: an entry outlives its article.
    """

    __tablename__ = "changes"

    seq: Mapped[PrimaryKey]
    article_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(20))
    slug: Mapped[str] = mapped_column(String(100))
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    transaction_id: Mapped[int] = mapped_column(BigInteger)
    """Of several changes in one transaction, one entry tells."""


Index("ix_changes_article", Change.article_id, Change.seq.desc())
