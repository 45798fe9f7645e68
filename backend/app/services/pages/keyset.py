"""Keyset pagination for lists with one statement and one order.

Lists of articles have many of both: see services.articles.listing.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import DateTime, Integer, Select, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.db.reading import Reader
from app.schemas.page import CursorQuery
from app.services.pages.cursors import Scalar, decode_cursor, encode_cursor
from app.services.pages.paging import ListPage

Item = TypeVar("Item")


class Keyset(NamedTuple):
    """A list's statements: for the first page, and for a page after a cursor."""

    kind: str
    first: Select[Any]
    after: Select[Any]
    datetimes: tuple[bool, ...]
    """Which order columns are datetimes; the last column is an id."""


def keyset(
    kind: str,
    statement: Any,
    *order: InstrumentedAttribute[Any],
    descending: bool = True,
) -> Keyset:
    """Build a paginated list from `statement`; the order columns must identify a row."""
    names = [f"place_{number}" for number in range(len(order))]
    position = tuple_(
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
        first.where(row < position if descending else row > position),
        tuple(isinstance(column.type, DateTime) for column in order),
    )


async def read_page(
    reader: Reader,
    listing: Keyset,
    *,
    query: CursorQuery,
    parameters: Mapping[str, Any],
    make_item: Callable[[Sequence[Any]], Item],
    of: object = "",
) -> ListPage[Item]:
    """Return a page of items that `make_item` makes of the rows.

    `of` identifies the list's owner, such as an article's id; it is part of the cursor. Raises
    InvalidCursor.
    """
    kind, width = f"{listing.kind} {of}", len(listing.datetimes)
    page_parameters = {**parameters, "limit": query.limit + 1}
    statement = listing.first
    if query.cursor is not None:
        statement = listing.after
        page_parameters |= _position_parameters(listing, decode_cursor(query.cursor, kind))
    rows = (await reader.execute(statement, page_parameters)).all()
    shown = rows[: query.limit]
    last = [_scalar(value) for value in shown[-1][-width:]] if len(rows) > query.limit else None
    return ListPage(
        [make_item(row[:-width]) for row in shown],
        next=None if last is None else encode_cursor(kind, last),
    )


def _position_parameters(listing: Keyset, values: Sequence[Scalar]) -> dict[str, Any]:
    return {
        f"place_{number}": datetime.fromisoformat(str(value)) if is_datetime else value
        for number, (value, is_datetime) in enumerate(zip(values, listing.datetimes, strict=True))
    }


def _scalar(value: Any) -> Scalar:
    scalar: Scalar = value.isoformat() if isinstance(value, datetime) else value
    return scalar
