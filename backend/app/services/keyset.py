"""Lists that are read page after page: each begins where the one before ended.

For lists of one shape and one order. Articles have many (services.articles.listing).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import DateTime, Integer, Select, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.db.reading import Reader
from app.schemas.page import CursorQuery
from app.services.cursors import Scalar, decode_cursor, encode_cursor
from app.services.paging import Listed

Item = TypeVar("Item")


class Keyset(NamedTuple):
    """A list's statements: of its first page, and of one behind a place."""

    kind: str
    first: Select[Any]
    behind: Select[Any]
    moments: tuple[bool, ...]
    """Which columns of its order are dates; the last one's is an id."""


def keyset(
    kind: str,
    statement: Any,
    *order: InstrumentedAttribute[Any],
    descending: bool = True,
) -> Keyset:
    """The list of what `statement` selects, in this order; the columns name a row together."""
    names = [f"place_{number}" for number in range(len(order))]
    place = tuple_(
        *(bindparam(name, type_=column.type) for name, column in zip(names, order, strict=True))
    )
    row = tuple_(*order)
    first = (
        statement.add_columns(*order)
        .order_by(*(column.desc() if descending else column.asc() for column in order))
        .limit(bindparam("limit", type_=Integer))
    )
    return Keyset(
        kind,
        first,
        first.where(row < place if descending else row > place),
        tuple(isinstance(column.type, DateTime) for column in order),
    )


async def read_page(
    connection: Reader,
    listing: Keyset,
    *,
    query: CursorQuery,
    parameters: Mapping[str, Any],
    make: Callable[[Sequence[Any]], Item],
    of: object = "",
) -> Listed[Item]:
    """A page of what `make` makes of the rows; `of` says whose list it is.

    Raises InvalidCursor.
    """
    kind, width = f"{listing.kind} {of}", len(listing.moments)
    given = {**parameters, "limit": query.limit + 1}
    statement = listing.first
    if query.cursor is not None:
        statement = listing.behind
        given |= _place(listing, decode_cursor(query.cursor, kind))
    rows = (await connection.execute(statement, given)).all()
    shown = rows[: query.limit]
    last = [_scalar(value) for value in shown[-1][-width:]] if len(rows) > query.limit else None
    return Listed(
        [make(row[:-width]) for row in shown],
        next=None if last is None else encode_cursor(kind, last),
    )


def _place(listing: Keyset, values: Sequence[Scalar]) -> dict[str, Any]:
    return {
        f"place_{number}": datetime.fromisoformat(str(value)) if is_moment else value
        for number, (value, is_moment) in enumerate(zip(values, listing.moments, strict=True))
    }


def _scalar(value: Any) -> Scalar:
    scalar: Scalar = value.isoformat() if isinstance(value, datetime) else value
    return scalar
