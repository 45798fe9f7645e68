"""The months with public articles."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, DateTime, func, literal, select

from app.core import clock
from app.db.reading import Reader
from app.models.articles.article import Article
from app.services.articles.rows import PUBLIC

MAX_MONTHS = 1200


def _month_of(date: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return func.date_trunc("month", date, literal("UTC"), type_=DateTime(timezone=True))


# Skips from month to month in the index, so it reads one row for each month.
_newest = select(Article.dated_at).where(PUBLIC).order_by(Article.dated_at.desc()).limit(1)
_months = select(_month_of(_newest.scalar_subquery()).label("month")).cte("months", recursive=True)
_earlier = _newest.where(Article.dated_at < _months.c.month).correlate(_months)
_all_months = _months.union_all(
    select(_month_of(_earlier.scalar_subquery())).where(_months.c.month.is_not(None))
)
_MONTHS = (
    select(_all_months.c.month)
    .where(_all_months.c.month.is_not(None))
    .order_by(_all_months.c.month.desc())
    .limit(MAX_MONTHS)
)


async def list_months(reader: Reader) -> Sequence[datetime]:
    """Return the beginnings, in UTC, of the months with public articles, newest first.

    At most MAX_MONTHS. Runs one query.
    """
    return list(await reader.scalars(_MONTHS, {"now": clock.now()}))
